// The images: how large, what they boot on, what they share, where they are staged. Touches the state.

import { get, part } from "../api.js";
import { h, keyed, replace, show } from "../dom.js";
import { ago, bytes, percent, short } from "../format.js";
import { refused } from "../dialog.js";
import { button, empty, facts, section, table } from "../parts.js";
import { store } from "../store.js";
import { boots, cloudInit } from "../words.js";

export function images() {
  const list = table("Images", ["Image", ["Size", "number"], ["On the network", "number"], ["Zeros", "number"], "BIOS", "UEFI", "Staged", "Added"]);
  const none = empty("There is no image yet.", "swarmboot image add NAME FILE");
  const more = h("div", { "aria-live": "polite" });
  const look = (name) => get(`/images/${part(name)}`).then((it) => replace(more, section(it.name, facts([
    ["Id", short(it.id)], ["Made from", it.source], ["Partition table", it.partition_table], ["Sectors", `${it.sector_bytes} bytes`], ["Chunks", it.chunks],
    ["Boots on BIOS", boots(it.traits?.bios)], ["Boots on UEFI", boots(it.traits?.uefi)], ["Can be personalised", it.traits?.not_personalised ? `no: ${it.traits.not_personalised}` : "yes"], ["cloud-init", cloudInit(it.traits?.cloud_init)],
    ["What it shares", (it.updates ?? []).map((one) => `${bytes(one.wire_bytes)} instead of ${bytes(it.wire_bytes)} where ${one.from} is`).join("; ") || "nothing with another image here"]]))), refused);
  const update = () => {
    show(none, store.images.length === 0);
    show(list, store.images.length > 0);
    keyed(list.body, store.images, (one) => `${one.name} ${one.id} ${JSON.stringify(one.staged)}`, (one) => h("tr", null,
      h("th", { scope: "row" }, button(one.name, () => look(one.name), "plain link")), h("td", { class: "number" }, bytes(one.bytes)), h("td", { class: "number" }, bytes(one.wire_bytes)),
      h("td", { class: "number" }, `${percent(one.zero_chunks, one.chunks)} %`), h("td", null, brief(boots(one.traits?.bios))), h("td", null, brief(boots(one.traits?.uefi))),
      h("td", null, (one.staged ?? []).map((at) => h("p", null, `${at.site}: ${at.relays.map((relay) => (relay.chunks ? `${percent(...relay.chunks)} %` : "nothing yet")).join(", ") || "no relay"}`))), h("td", null, ago(one.added))));
  };
  return { title: "Images", root: h("div", null, none, list, more), update };
}

const brief = (words) => h("span", { title: words }, words.split(":")[0]);
