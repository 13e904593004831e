// The documentation page in a real browser: `node page.mjs <hub> <token> <where screenshots go>`, in a directory that has
// playwright-core. What it found is one JSON object on stdout; cli/tests/api/page.rs says what must be in it.
import { createRequire } from "node:module";
import { join } from "node:path";

const { chromium } = createRequire(join(process.cwd(), "package.json"))("playwright-core");
const [hub, token, pictures] = process.argv.slice(2);
const found = { said: [], strangers: [], pictures: [] };
const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

async function visit(name, options, steps) {
  const context = await browser.newContext(options);
  const page = await context.newPage();
  page.on("console", (message) => found.said.push(`${name}: ${message.text()}`));
  page.on("pageerror", (error) => found.said.push(`${name}: ${error.message}`));
  page.on("request", (request) => {
    if (!request.url().startsWith(`${hub}/`) && !request.url().startsWith("data:")) found.strangers.push(request.url());
  });
  await page.goto(`${hub}/api/docs`);
  await page.waitForSelector(".operation");
  await steps(page);
  const path = join(pictures, `docs-${name}.png`);
  await page.screenshot({ path });
  found.pictures.push(path);
  await context.close();
}

const openAll = (page) => page.evaluate(async () => {
  for (const details of document.querySelectorAll("details.operation")) details.open = true;
  // What is in them is made by their own events.
  await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
});

const ask = async (page) => {
  await page.click("#listCircuits .try button");
  await page.waitForSelector("#listCircuits .try pre");
  const answer = await page.textContent("#listCircuits .try");
  await page.evaluate(() => document.querySelector("#listCircuits .try pre").remove());
  return answer;
};

await visit("light", { viewport: { width: 1280, height: 900 }, colorScheme: "light" }, async (page) => {
  await openAll(page);
  found.operations = await page.locator(".operation").count();
  found.without_an_example = await page.locator(".operation:not(:has(.copyable pre))").count();
  found.text = (await page.textContent("main")).match(/\[object|undefined|NaN/g) ?? [];
  await page.reload();
  await page.waitForSelector(".operation");

  // By keyboard alone: to the filter, to what it leaves, into it.
  await page.keyboard.press("/");
  await page.keyboard.type("circuits get");
  found.filtered = await page.locator(".operation:not([hidden]) .path").allTextContents();
  await page.locator("#listCircuits > summary").focus();
  await page.keyboard.press("Enter");
  await page.waitForSelector("#listCircuits .try button");
  found.opened = await page.locator("#listCircuits[open]").count();
  await page.focus("#filter");
  await page.keyboard.press("Escape");
  found.after_escape = await page.locator(".operation:not([hidden])").count();

  found.without_token = await ask(page);
  await page.fill("#token-value", token);
  await page.click("#token button");
  found.with_token = await ask(page);
  found.kept = await page.evaluate(() => sessionStorage.getItem("cogo.token"));
});
// The 401 that was asked for is told by the browser itself; nothing else may be.
found.said = found.said.filter((text) => !text.includes("status of 401"));

await visit("dark", { viewport: { width: 1280, height: 900 }, colorScheme: "dark" }, async (page) => {
  found.ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  await page.goto(`${hub}/api/docs#callTool`);
  await page.waitForSelector("#callTool .try, #callTool .copyable");
  found.by_address = await page.locator("#callTool[open]").count();
});

await visit("phone", { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }, async (page) => {
  await openAll(page);
  found.wide = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  await page.reload();
  await page.waitForSelector(".operation");
  await page.fill("#filter", "post dead");
  await page.locator(".operation:not([hidden]) > summary").first().tap();
});

await browser.close();
console.log(JSON.stringify(found));
