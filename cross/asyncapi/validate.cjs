// Reads an AsyncAPI document with AsyncAPI's own parser, and prints it as JSON with all references resolved.
// usage: node validate.cjs NODE_MODULES DOCUMENT
const { readFileSync } = require('node:fs');
const [modules, document] = process.argv.slice(2);
const { Parser } = require(`${modules}/@asyncapi/parser`);

new Parser().parse(readFileSync(document, 'utf8'), { source: document }).then(({ document: read, diagnostics }) => {
  // 0 is an error, 1 a warning; what is below is advice.
  const problems = diagnostics.filter(({ severity }) => severity <= 1);
  for (const { message, path, range } of problems) {
    console.error(`${document}:${range.start.line + 1}: ${path.join('.')}: ${message}`);
  }
  if (!read || problems.length > 0) {
    process.exit(1);
  }
  console.log(JSON.stringify({ version: read.version(), channels: read.json().channels }));
});
