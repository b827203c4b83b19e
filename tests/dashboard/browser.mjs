// Chromium as a person uses it, and what is wrong with a page: errors of the console, failed requests, what axe finds.
// Owns the browser and the pictures; touches the page only as a person could, by what stands on it and by keys.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { DASHBOARD, PATIENCE, pause } from "./rack.mjs";

const require = createRequire(`${process.env.SWARMBOOT_TEST_MODULES}/`);
const { chromium } = require("playwright-core");
const AXE = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
// The page's files from this folder instead of the server's own, so that a change to them needs no build.
const WEB = process.env.SWARMBOOT_TEST_WEB;
const PICTURES = process.env.SWARMBOOT_TEST_PICTURES;
const DESK = { width: 1280, height: 800 };
const PHONE = { width: 390, height: 800 };

async function fromFolder(route) {
  const { pathname } = new URL(route.request().url());
  const path = `${WEB}${pathname === "/" ? "/index.html" : pathname}`;
  await (existsSync(path) ? route.fulfill({ path }) : route.continue());
}

// What went wrong so far, in sentences.
export const wrong = [];
export const looked = { pages: 0, pictures: 0 };

// Whether something is right; all that is not is told at the end.
export function right(is, what) {
  if (is) return;
  console.error(`WRONG ${what}`);
  wrong.push(what);
}

let browser = null;

// Starts Chromium, which believes the server whose certificate has this key.
export async function launch(pin) {
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", `--ignore-certificate-errors-spki-list=${pin}`] });
}

export const close = () => browser?.close();

// A person at a computer of their own, signed in with a token.
export class Person {
  constructor(name) {
    this.name = name;
    // Refusals that are asked for: the browser tells of each in its console.
    this.expected = 0;
  }

  async open(token, { theme = "dark", size = DESK } = {}) {
    this.context = await browser.newContext({ viewport: size, colorScheme: theme, reducedMotion: "reduce" });
    this.page = await this.context.newPage();
    this.page.setDefaultTimeout(PATIENCE);
    if (WEB) await this.context.route(/:8470\/([a-z]*|(js|css)\/.*|[a-z]+\.svg)$/, fromFolder);
    this.listen();
    await this.page.goto(`${DASHBOARD}/`);
    if (token) await this.signIn(token);
    return this;
  }

  async signIn(token) {
    await this.page.getByLabel("Token", { exact: true }).fill(token);
    await this.page.keyboard.press("Enter");
    await this.page.locator("main#main").waitFor();
    await this.page.getByText("live", { exact: true }).waitFor();
  }

  listen() {
    const tell = (what) => {
      if (this.expected > 0 && /40[0139]/.test(what)) return;
      right(false, `${this.name} at ${this.page.url()}: ${what}`);
    };
    this.page.on("console", (said) => ["error", "warning"].includes(said.type()) && tell(`console: ${said.text()}`));
    this.page.on("pageerror", (error) => tell(`error: ${error.stack || error.message}`));
    this.page.on("dialog", (dialog) => {
      tell(`a script ran: ${dialog.message()}`);
      dialog.dismiss();
    });
    // Streams are broken off when a page is left.
    this.page.on("requestfailed", (request) => request.failure()?.errorText !== "net::ERR_ABORTED" && tell(`${request.url()}: ${request.failure()?.errorText}`));
    this.page.on("response", (answer) => answer.status() >= 400 && tell(`${answer.status()} ${answer.url()}`));
    this.page.on("request", (request) => !request.url().startsWith(DASHBOARD) && tell(`asks elsewhere: ${request.url()}`));
  }

  // Does what will be refused.
  async refused(act) {
    this.expected += 1;
    const result = await act();
    await pause(300);
    this.expected -= 1;
    return result;
  }

  // Goes to a view, once it is drawn.
  async go(place) {
    await this.page.goto(`${DASHBOARD}/#/${place}`);
    await this.page.evaluate(() => new Promise((done) => setTimeout(() => requestAnimationFrame(() => requestAnimationFrame(done)), 600)));
  }

  button(name) {
    return this.page.getByRole("button", { name, exact: true });
  }

  dialog() {
    return this.page.getByRole("dialog");
  }

  says(text) {
    return this.page.getByText(text).first().waitFor();
  }

  // Confirms a dialog by keys alone: the number where it is asked for, Enter otherwise.
  async confirm(typed = null) {
    await this.dialog().waitFor();
    if (typed !== null) {
      right(await this.dialog().locator("button[type=submit]").isDisabled(), "a dialog that asks for a number can be confirmed without it");
      await this.page.keyboard.type(String(typed));
      await this.page.keyboard.press("Enter");
    } else {
      await this.tabTo(this.dialog().locator("button[type=submit]"));
      await this.page.keyboard.press("Enter");
    }
    await this.dialog().waitFor({ state: "detached" });
  }

  // Presses Tab until the control has the focus, as who has no mouse.
  async tabTo(control) {
    for (let presses = 0; presses < 60; presses += 1) {
      if (await control.evaluate((node) => node === document.activeElement)) return;
      await this.page.keyboard.press("Tab");
    }
    right(false, `the keyboard does not reach ${control}`);
  }

  // What axe finds serious on the page as it stands, and whether anything is wider than the screen.
  async look(what) {
    await this.page.evaluate(AXE);
    const found = await this.page.evaluate(() => globalThis.axe.run({ resultTypes: ["violations"] }));
    for (const one of found.violations.filter((it) => ["serious", "critical"].includes(it.impact))) {
      const where = one.nodes.slice(0, 3).map((node) => `${node.html.slice(0, 160)} ${node.any[0]?.message ?? ""}`).join(" | ");
      right(false, `${what}: axe says ${one.id} (${one.impact}), ${one.nodes.length} times: ${where}`);
    }
    const over = await this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    right(over <= 0, `${what}: ${over} pixels wider than the screen`);
    looked.pages += 1;
  }

  async picture(name) {
    await this.page.screenshot({ path: `${PICTURES}/${name}.png` });
    looked.pictures += 1;
  }

  leave() {
    return this.context.close();
  }
}

// Looks at views in dark, in light and on a phone.
export async function everywhere(token, views) {
  for (const [tag, options] of [["dark", {}], ["light", { theme: "light" }], ["phone", { size: PHONE }], ["phone-light", { size: PHONE, theme: "light" }]]) {
    const person = await new Person(tag).open(token, options);
    for (const [place, name] of views) {
      await person.go(place);
      await person.look(`${tag} ${name}`);
      await person.picture(`${name}-${tag}`);
    }
    await person.leave();
  }
}
