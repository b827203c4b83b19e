// The tokens: made, listed, revoked. A new one is shown once. Touches the API.

import { get, part, post, remove } from "../api.js";
import { ask, notice, refused } from "../dialog.js";
import { h, replace } from "../dom.js";
import { ago, when } from "../format.js";
import { button, empty, field, table } from "../parts.js";
import { may } from "../session.js";

export function tokens() {
  if (!may("admin")) return { title: "Tokens", root: empty("Tokens are for admins.") };
  const list = table("Tokens", ["Name", "Role", "For", "Made", "Expires", "Last used", ""]);
  const load = async () => {
    try {
      replace(list.body, (await get("/tokens")).map((one) => h("tr", { class: one.revoked ? "refused" : null },
        h("th", { scope: "row" }, one.name), h("td", null, one.role), h("td", null, [...one.scope.sites, ...one.scope.labels].join(", ") || "everything"), h("td", null, `${ago(one.made)} by ${one.by}`),
        h("td", null, one.revoked ? `revoked ${ago(one.revoked)}` : one.expires ? when(one.expires) : "never"), h("td", null, one.used ? ago(one.used) : "–"), h("td", null, one.revoked ? null : button("Revoke", () => revoke(one.name), "danger quiet")))));
    } catch (error) {
      refused(error);
    }
  };
  const revoke = async (name) => {
    if (!(await ask({ title: `Revoke ${name}?`, body: h("p", null, "Whoever uses it is let in no more, at once."), act: "Revoke", danger: true }))) return;
    await remove(`/tokens/${part(name)}`).then(() => notice(`${name} is revoked`), refused);
    load();
  };
  const make = async () => {
    const name = h("input", { type: "text", id: "t-name", required: true, autocomplete: "off" });
    const role = h("select", { id: "t-role" }, ["viewer", "operator", "admin"].map((one) => h("option", { value: one }, one)));
    const sites = h("input", { type: "text", id: "t-sites", autocomplete: "off" });
    const labels = h("input", { type: "text", id: "t-labels", autocomplete: "off" });
    const days = h("input", { type: "text", id: "t-days", inputmode: "numeric", value: "90" });
    const body = [field(name, "Name, by which the log names who uses it"), field(role, "Role"), field(sites, "Only these sites, commas between; empty for all"), field(labels, "Only machines with these labels"), field(days, "Days until it expires; empty for never")];
    if (!(await ask({ title: "New token", body, act: "Make it" }))) return;
    const words = (text) => text.split(",").map((one) => one.trim()).filter(Boolean);
    try {
      const made = await post("/tokens", { name: name.value.trim(), role: role.value, scope: { sites: words(sites.value), labels: words(labels.value) }, expires_seconds: Number(days.value) ? Number(days.value) * 86400 : null });
      await ask({ title: `The token of ${made.shown.name}`, body: [h("p", null, "It is shown this once: the server keeps only its hash."), h("p", { class: "secret mono" }, made.token)], cancel: "I have it" });
    } catch (error) {
      refused(error);
    }
    load();
  };
  load();
  return { title: "Tokens", root: list, actions: [button("New token…", make, "primary")] };
}
