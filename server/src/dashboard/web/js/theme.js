// Dark or light: as the system says, unless the person chose. Owns one entry of localStorage.

const NAME = "swarmboot.theme";
const NEXT = { system: "dark", dark: "light", light: "system" };

// What was chosen: `system`, `dark` or `light`.
export function theme() {
  try {
    return localStorage.getItem(NAME) ?? "system";
  } catch {
    return "system"; // Storage is switched off.
  }
}

// Draws the page as chosen.
export function applyTheme() {
  const chosen = theme();
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
}

// Chooses the next one.
export function nextTheme() {
  try {
    localStorage.setItem(NAME, NEXT[theme()]);
  } catch {
    // As above: it stays as the system says.
  }
  applyTheme();
}
