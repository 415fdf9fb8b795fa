// What each task of package.json runs: set-up, then the task in this same process, so that signals reach it. The task is
// what the named file exports as `task`, see command.ts. Plain JavaScript: nothing is installed yet.
"use strict";
const { resolve } = require("path");

require("./setup").setUp();
require("sucrase/register/ts");
const [file = "", ...args] = process.argv.slice(2);
require("./command").runAlone(require(resolve(__dirname, "..", file)).task, args);
