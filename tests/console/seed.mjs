// Something to look at: calls that went well, and each kind of failure that the console must explain.
import { api, ended, enqueue } from './browser.mjs';

export async function seed() {
  const well = [];
  for (let n = 0; n < 12; n += 1) {
    well.push(await enqueue('demo', 'echo', { message: `hello ${n}` }));
    if (n % 2) well.push(await enqueue('demo', 'add', { a: n, b: 2 }));
    if (n % 4 === 0) well.push(await enqueue('demo', 'sleep', { ms: 40 * n }));
  }
  const picture = await enqueue('shop', 'picture', { caption: 'a chessboard' });
  const refused = await enqueue('shop', 'refuse', { order: 'A-17' });
  const absent = await enqueue('demo', 'nothere', {});
  for (const { id } of [...well, picture, refused, absent]) await ended(id);
  // Two attempts each; the third failure opens the breaker.
  const crashed = await enqueue('shop', 'crash', {});
  await ended(crashed.id);
  await enqueue('shop', 'crash', { note: 'again' });
  for (;;) {
    const { circuits } = await api('GET', '/api/circuits');
    if (circuits.some(({ key, state }) => key.startsWith('mcp.call.shop.crash') && state !== 'closed')) break;
    await new Promise((done) => setTimeout(done, 50));
  }
  return { picture, refused, absent, crashed };
}
