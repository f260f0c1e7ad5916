// Builds src/ into dist/, which is committed and embedded in the node's binary. dist/manifest.json holds the hash of every
// source and of every product, so that a test finds products that were not built from the sources beside them.

import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, relative } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = dirname(fileURLToPath(import.meta.url));
const at = (...parts) => join(root, ...parts);

rmSync(at("dist"), { recursive: true, force: true });
mkdirSync(at("dist"));
await build({
  absWorkingDir: root,
  entryPoints: { app: "src/main.tsx" },
  outdir: "dist",
  bundle: true,
  minify: true,
  target: "es2022",
  format: "esm",
  legalComments: "none",
  jsx: "automatic",
  jsxImportSource: "preact",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) copyFileSync(at("src", name), at("dist", name));

const files = (folder) =>
  readdirSync(at(folder), { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    return entry.isDirectory() ? files(path) : [path];
  });
const hashes = (names) =>
  Object.fromEntries(
    names
      .map((name) => relative(root, at(name)))
      .sort()
      .map((name) => [name, createHash("sha256").update(readFileSync(at(name))).digest("hex")]),
  );
const manifest = {
  sources: hashes([...files("src"), "build.mjs", "package-lock.json", "package.json", "tsconfig.json"]),
  dist: hashes(files("dist")),
};
writeFileSync(at("dist", "manifest.json"), `${JSON.stringify(manifest, null, 2)}\n`);
