// The server's status, and its freeze. Touches the API.

import { post } from "../api.js";
import { ask, askText, notice, refused } from "../dialog.js";
import { h, replace } from "../dom.js";
import { ago, when } from "../format.js";
import { button, facts, section } from "../parts.js";
import { may, who } from "../session.js";
import { lookAtAll, store, tell } from "../store.js";

export function settings() {
  const status = h("div");
  const freeze = async () => {
    const frozen = Boolean(store.status?.frozen);
    const reason = frozen ? null : await askText({ title: "Freeze the server?", label: "Reason", hint: "nothing new is started until it is unfrozen; what runs goes on", act: "Freeze", required: false });
    if (!frozen && reason === null) return;
    if (frozen && !(await ask({ title: "Let new things begin again?", body: h("p", null, "Orders and machines that wait go on at once."), act: "Unfreeze" }))) return;
    try {
      store.status.frozen = await post("/freeze", { freeze: !frozen, reason: reason || null });
      notice(frozen ? "new things begin again" : "frozen: nothing new is started");
      tell();
      lookAtAll();
    } catch (error) {
      refused(error);
    }
  };
  const button_ = may("operator") ? button("Freeze or unfreeze…", freeze) : null;
  const update = () => {
    const it = store.status;
    if (!it) return;
    replace(status, facts([
      ["Version", it.version], ["Boot URL", it.url], ["Mode", it.mode], ["Running since", `${when(it.started)} (${ago(it.started)})`], ["Key", it.key],
      ["Frozen", it.frozen ? `since ${when(it.frozen.since)}${it.frozen.reason ? `: ${it.frozen.reason}` : ""}` : "no"], ["Warnings", it.warnings.join("; ") || "none"]]));
  };
  const me = facts([["You", who.who], ["Role", who.role], ["For", [...who.scope.sites, ...who.scope.labels].join(", ") || "everything"], ["Token expires", who.expires ? when(who.expires) : "never"]]);
  return { title: "Settings", root: h("div", null, section("Server", status, button_), section("You", me)), update };
}
