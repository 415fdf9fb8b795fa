// What `npm start` and `npm test` do first on a fresh clone. Plain JavaScript: nothing is installed yet.
"use strict";
const { spawnSync } = require("child_process");
const { readFileSync } = require("fs");
const { join } = require("path");

const root = join(__dirname, "..");

/** Whether node_modules holds what the lockfile says; npm keeps a lockfile of its own in there. */
function isInstalled(directory = root) {
  const packages = (...path) => JSON.parse(readFileSync(join(directory, ...path), "utf8")).packages;
  try {
    const installed = packages("node_modules", ".package-lock.json");
    return Object.entries(packages("package-lock.json")).every(
      ([path, { version, optional }]) => path === "" || optional || installed[path]?.version === version,
    );
  } catch {
    return false;
  }
}

/** Installs the packages of a directory's lockfile, unless they are there. Ends the process where that fails. */
function setUp(directory = root) {
  const [major, minor] = process.versions.node.split(".").map(Number);
  if (major < 20 || (major === 20 && minor < 19)) {
    console.error(`Node ${process.versions.node} is too old: install Node >= 20.19`);
    process.exit(1);
  }
  if (isInstalled(directory)) return;
  console.error("Installing packages with npm ci, only until package-lock.json changes…");
  const npm = process.env.npm_execpath ? [process.execPath, process.env.npm_execpath] : ["npm"];
  // No scripts of packages: none is needed here, and some would fetch plugins that only `pulumi up` uses.
  // Its messages are shown even under `npm start --silent`.
  const args = [...npm.slice(1), "ci", "--ignore-scripts", "--loglevel=notice"];
  const { status, error } = spawnSync(npm[0], args, { cwd: directory, stdio: ["ignore", 2, 2] });
  if (status === 0) return;
  console.error(
    `npm ci failed${error ? ` (${error.message})` : ""}: see above; a registry that npm can reach is needed`,
  );
  process.exit(1);
}

module.exports = { isInstalled, setUp };
if (require.main === module) setUp();
