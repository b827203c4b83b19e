// Which view an address shows. Touches the views.

import { h } from "./dom.js";
import { deployment } from "./views/deployment.js";
import { deployments } from "./views/deployments.js";
import { images } from "./views/images.js";
import { kits } from "./views/kits.js";
import { log } from "./views/log.js";
import { machine } from "./views/machine.js";
import { machines } from "./views/machines.js";
import { order } from "./views/order.js";
import { overview } from "./views/overview.js";
import { profiles } from "./views/profiles.js";
import { settings } from "./views/settings.js";
import { sites } from "./views/sites.js";
import { tokens } from "./views/tokens.js";

const missing = () => ({
  title: "Nothing here",
  root: h("p", null, "There is no such page. ", h("a", { href: "#/", class: "in-text" }, "To the overview")),
});

export const ROUTES = {
  overview,
  machines: (at) => (at.id ? machine(at) : machines(at)),
  deployments: (at) => (at.id ? deployment(at) : deployments(at)),
  order,
  profiles,
  images,
  kits,
  sites,
  log,
  tokens,
  settings,
  missing,
};
