// Puts the page together, and shows what the address asks for.

import { watchConnection } from './api.js';
import { current, t } from './i18n.js';
import { keys } from './keys.js';
import { connect, disconnect } from './live.js';
import { failure } from './parts.js';
import { here } from './router.js';
import { look, session, watchSession } from './session.js';
import { shell } from './shell.js';
import { signInPage } from './signin.js';
import artifacts from './pages/artifacts.js';
import circuits from './pages/circuits.js';
import deadLetters from './pages/dead-letters.js';
import events from './pages/events.js';
import message from './pages/message.js';
import overview from './pages/overview.js';
import tools from './pages/tools.js';
import trace from './pages/trace.js';
import traces from './pages/traces.js';
import workers from './pages/workers.js';

const PAGES = { overview, traces, trace, message, 'dead-letters': deadLetters, workers, circuits, tools, events, artifacts };

let leave = null;
let shown = null;
let frame = null;

function draw() {
  document.documentElement.lang = current();
  frame = shell({ again: restart });
  // Not by a morph: the frame holds on to its own parts.
  document.getElementById('app').replaceChildren(frame.element);
  show(true);
}

/** Everything anew: the language has changed. */
function restart() {
  draw();
}

function show(force) {
  const route = here();
  const address = `${route.page}/${route.parts.join('/')}`;
  // Only the filters have changed, and the page did that itself.
  if (!force && address === shown && !route.query.fresh && leave && JSON.stringify(route.query) === history.state?.query) return;
  shown = address;
  leave?.abort();
  leave = new AbortController();
  const main = frame.main;
  main.replaceChildren();
  const page = PAGES[route.page] ?? overview;
  const id = PAGES[route.page] ? route.page : 'overview';
  frame.chose(page.under ?? id);
  document.title = `${t(`nav.${page.under ?? id}`)} · COGO`;
  const blocked = session.known && !session.reads;
  if (blocked) {
    main.append(signInPage());
    return;
  }
  try {
    page.show(main, { ...route, signal: leave.signal });
  } catch (error) {
    console.error(error);
    main.append(failure(error, () => show(true)));
  }
  window.scrollTo(0, 0);
}

window.addEventListener('hashchange', () => {
  // Nothing stands yet; what is begun will show the new address.
  if (!frame) return;
  show(true);
  frame.main.focus({ preventScroll: true });
});

/** The session is asked for again when the hub comes back: its token may be another. */
let reachable = true;
watchConnection((now) => {
  if (now && !reachable) look().catch(() => {});
  reachable = now;
});

let signature = '';
watchSession(() => {
  const now = JSON.stringify([session.admin, session.reads, session.openReads]);
  if (now !== signature) {
    signature = now;
    if (session.reads) connect();
    else disconnect();
  }
  if (frame) {
    frame.redraw();
    show(true);
  }
});

async function begin() {
  keys();
  try {
    await look();
  } catch (error) {
    if (!session.known) {
      // Nobody answers yet: the page stands, says so, and goes on by itself.
      setTimeout(begin.again ?? (begin.again = () => look().catch(() => setTimeout(begin.again, 2000))), 1500);
    }
  }
  if (!frame) draw();
}

begin();
