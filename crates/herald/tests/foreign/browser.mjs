// A real browser without a window, for the scripts beside this one.

import { accessSync, constants } from "node:fs";
import { createRequire } from "node:module";
import { delimiter, join } from "node:path";
import process from "node:process";

// What cargo xtask installed.
export const require = createRequire(join(process.env.HERALD_TOOLS, "node", "package.json"));

const { chromium } = require("playwright-core");

function inPath(program) {
  return process.env.PATH.split(delimiter)
    .map((directory) => join(directory, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

export function launch() {
  return chromium.launch({
    executablePath: inPath("chromium"),
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
    ],
  });
}
