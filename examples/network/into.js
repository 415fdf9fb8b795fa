// Puts settings, JSON from standard input, into a stack file. Comments and every other setting stay.
//   pulumi -C examples/network stack output settings --json | node examples/network/into.js Pulumi.staging.yaml
const { readFileSync, writeFileSync } = require("fs");
const { isMap, parseDocument } = require("yaml");

const [file] = process.argv.slice(2);
if (file === undefined) {
  process.stderr.write("usage: … stack output settings --json | node examples/network/into.js Pulumi.<stack>.yaml\n");
  process.exit(2);
}
const document = parseDocument(readFileSync(file, "utf8"));
const put = (path, value) => {
  const inBoth = isMap(document.getIn(path, true)) && value !== null && !Array.isArray(value);
  if (inBoth && typeof value === "object") {
    for (const [key, inner] of Object.entries(value)) put([...path, key], inner);
  } else document.setIn(path, document.createNode(value));
};
put(["config"], JSON.parse(readFileSync(0, "utf8")));
writeFileSync(file, document.toString({ lineWidth: 120 }));
process.stdout.write(`${file} has the ids and addresses of the network now\n`);
