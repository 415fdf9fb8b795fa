const tseslint = require("typescript-eslint");

/** The program's folders in which no file is longer than 350 lines, and no function longer than 80. */
const short = [
  "index.ts",
  "settings/**",
  "stacks/**",
  "components/**",
  "consul/**",
  "local/**",
  "lab/**",
  "operate/**",
  "policy/**",
  "site/**",
  "tools/**",
];

module.exports = tseslint.config(
  { ignores: ["node_modules/", "bin/", "**/dist/", ".cache/", ".local/", ".npm/", ".pulumi/"] },
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: __dirname } },
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      curly: ["error", "multi-line"],
      eqeqeq: "error",
      "no-console": "error",
      // Numbers in messages are what messages are for.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      // The program is CommonJS: index.ts exports with `export =`, and one place loads it late.
      "@typescript-eslint/no-require-imports": "off",
      // `export =` in index.ts and `() => void wrong(...)` are deliberate.
      "@typescript-eslint/no-confusing-void-expression": [
        "error",
        { ignoreArrowShorthand: true, ignoreVoidOperator: true },
      ],
      "@typescript-eslint/no-meaningless-void-operator": "off",
      "@typescript-eslint/consistent-type-definitions": "off",
    },
  },
  {
    // Pulumi resources register themselves when they are constructed.
    files: ["components/**", "stacks/**", "examples/**"],
    rules: { "no-new": "off" },
  },
  { files: ["local/**", "lab/**", "tools/**", "test/**", "examples/**/*.js"], rules: { "no-console": "off" } },
  { files: short, rules: { "max-lines": ["error", 350], "max-lines-per-function": ["error", 80] } },
  { files: ["**/*.js", "**/*.cjs", "**/*.mjs"], ...tseslint.configs.disableTypeChecked },
);
