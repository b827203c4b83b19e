// The boot kits: what machines are booted with, and what is missing in it. Touches the state.

import { h, keyed, show } from "../dom.js";
import { ago, bytes } from "../format.js";
import { empty, table } from "../parts.js";
import { store } from "../store.js";

export function kits() {
  const list = table("Boot kits", ["Kit", "Kernel", "In use", ["Kernel and loader", "number"], "Boot programs", "Imported", "What it lacks"]);
  const none = empty("There is no boot kit, so no machine can be booted.", "swarmboot kit import");
  const update = () => {
    show(none, store.kits.length === 0);
    show(list, store.kits.length > 0);
    keyed(list.body, store.kits, (one) => `${one.name} ${one.in_use}`, (one) => h("tr", null,
      h("th", { scope: "row" }, one.name), h("td", null, `${one.kernel}, ${one.architecture}`), h("td", null, one.in_use ? "yes" : "no"), h("td", { class: "number" }, bytes(one.kernel_bytes + one.loader_bytes)),
      h("td", null, `${one.boot_programs.join(", ")}${one.ipxe ? ` (iPXE ${one.ipxe}${one.verifies ? ", verifies" : ""})` : ""}`), h("td", null, ago(one.imported)), h("td", { class: one.missing.length ? "bad" : null }, one.missing.map((it) => h("p", null, it)))));
  };
  return { title: "Boot kits", root: h("div", null, none, list), update };
}
