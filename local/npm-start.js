// `npm start`: set-up, then start.ts in this same process, so that signals reach it. Plain JavaScript, see setup.js.
"use strict";
require("./setup").setUp();
require("sucrase/register/ts");
require("./start.ts");
