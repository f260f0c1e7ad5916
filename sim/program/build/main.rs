//! Builds the commit of the source into the program, and anew whenever that changes.

#![expect(
    clippy::print_stdout,
    reason = "a build script tells cargo on its standard output"
)]

mod commit;

use std::path::Path;

fn main() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for path in commit::watched(&root) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    println!("cargo:rustc-env=PQCNET_COMMIT={}", commit::of(&root));
}
