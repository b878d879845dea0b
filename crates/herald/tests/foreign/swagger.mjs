// Opens the Swagger page in a browser, tries a poll out as a person would, and prints what the page shows.
//
// Arguments: the base URL, a HER-id, a path for a picture of the page. Prints one JSON object: the status and the body that
// the page shows, and every address that the browser asked for.

import process from "node:process";
import { launch } from "./browser.mjs";

const [base, herId, picture] = process.argv.slice(2);

const browser = await launch();
try {
  const page = await browser.newPage({ viewport: { width: 1200, height: 1400 } });
  const asked = [];
  const problems = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("pageerror", (error) => problems.push(String(error)));
  await page.goto(`${base}/swagger`);

  const poll = page.locator(".opblock-get").filter({
    has: page.locator('[data-path="/notifications"]'),
  });
  await poll.locator(".opblock-summary-control").click();
  // The page may begin with its forms open; then the same button says "Cancel".
  const tryOut = poll.locator(".try-out__btn");
  if ((await tryOut.innerText()).trim() === "Try it out") await tryOut.click();

  const parameter = (name) => poll.locator(`tr[data-param-name="${name}"]`);
  const herIds = parameter("HerIds");
  if ((await herIds.locator("input").count()) === 0) {
    await herIds.locator(".json-schema-form-item-add").click();
  }
  await herIds.locator("input").first().fill(herId);
  await parameter("Offset").locator("input").fill("0");
  const identity = { "api-version": "3", "nhn-source-system": "browser/1" };
  for (const [name, value] of Object.entries(identity)) {
    const input = parameter(name).locator("input");
    // A parameter with one value is a list to choose from.
    if ((await input.count()) > 0) await input.fill(value);
    else await parameter(name).locator("select").selectOption(value);
  }
  await poll.getByRole("button", { name: "Execute" }).click();

  const answer = poll.locator(".live-responses-table .response").first();
  const status = (await answer.locator(".response-col_status").innerText()).trim();
  const body = await answer.locator("pre").first().innerText();
  await page.screenshot({ path: picture, fullPage: true });
  console.log(JSON.stringify({ status, body, asked, problems }));
} finally {
  await browser.close();
}
