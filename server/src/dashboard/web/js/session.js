// Who is signed in: the token, where it is kept, and what its role allows. Owns the entries of sessionStorage and
// localStorage. A token is kept for the tab unless the person asks for more, because whoever can open the browser then
// has it.

const NAME = "swarmboot.token";
const RANK = { viewer: 0, operator: 1, admin: 2 };

let token = read(sessionStorage) ?? read(localStorage);

// The person behind the token as the server knows it, once it was asked.
export const who = { who: null, role: null, scope: { sites: [], labels: [] }, expires: null };

function read(storage) {
  try {
    return storage.getItem(NAME);
  } catch {
    return null; // Storage is switched off: the token lives as long as the page.
  }
}

// The token, or null when nobody is signed in.
export function current() {
  return token;
}

// Keeps a token: for this tab, or for this browser.
export function signIn(text, remember) {
  token = text;
  try {
    (remember ? localStorage : sessionStorage).setItem(NAME, text);
  } catch {
    // As above.
  }
}

// Forgets the token everywhere.
export function signOut() {
  token = null;
  Object.assign(who, { who: null, role: null, scope: { sites: [], labels: [] }, expires: null });
  for (const storage of [sessionStorage, localStorage]) {
    try {
      storage.removeItem(NAME);
    } catch {
      // As above.
    }
  }
}

// Whether the role allows at least what `role` may do. The server decides; this only leaves out what it would refuse.
export function may(role) {
  return (RANK[who.role] ?? -1) >= RANK[role];
}
