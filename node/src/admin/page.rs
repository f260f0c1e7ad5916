//! The operator's page, its files built from `node/ui` and embedded. It asks nobody but this node.

use actix_web::HttpResponse;
use actix_web::http::header;

/// Whatever the page wants, it gets from here; it runs no script and no style of its own text, and stands in no frame.
pub const CONTENT_SECURITY_POLICY: &str =
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// One embedded file.
pub struct Asset {
    /// Where it is served.
    pub path: &'static str,
    /// Its media type.
    pub kind: &'static str,
    /// Its bytes.
    pub body: &'static [u8],
}

macro_rules! dist {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/ui/dist/", $name))
    };
}

/// All files of the page.
pub const ASSETS: &[Asset] = &[
    Asset {
        path: "/ui",
        kind: "text/html; charset=utf-8",
        body: dist!("index.html"),
    },
    Asset {
        path: "/ui/app.js",
        kind: "text/javascript; charset=utf-8",
        body: dist!("app.js"),
    },
    Asset {
        path: "/ui/app.css",
        kind: "text/css; charset=utf-8",
        body: dist!("app.css"),
    },
    Asset {
        path: "/ui/icon.svg",
        kind: "image/svg+xml",
        body: dist!("icon.svg"),
    },
];

/// A file as a response.
pub fn serve(asset: &Asset) -> HttpResponse {
    HttpResponse::Ok()
        .content_type(asset.kind)
        .insert_header((header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"))
        .insert_header((header::REFERRER_POLICY, "no-referrer"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("Cross-Origin-Opener-Policy", "same-origin"))
        .insert_header(("Cross-Origin-Resource-Policy", "same-origin"))
        .body(asset.body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write as _;
    use std::path::{Path, PathBuf};

    use pqcnet_crypto::sha256;

    /// All that the page may weigh, compressed.
    const MAX_GZIPPED: usize = 250_000;

    fn ui() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("ui")
    }

    fn hash(path: &Path) -> String {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        hex::encode(sha256(&[&bytes]))
    }

    fn manifest() -> serde_json::Value {
        let text = fs::read_to_string(ui().join("dist/manifest.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// Files of `folder` and below, relative to `ui`, sorted.
    fn files(folder: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                found.extend(files(&path));
            } else {
                let name = path.strip_prefix(ui()).unwrap();
                found.push(name.to_str().unwrap().to_owned());
            }
        }
        found.sort();
        found
    }

    /// The embedded files were built from the sources that lie beside them: `make ui` records the hash of each.
    #[test]
    fn the_page_is_built_from_its_sources() {
        let manifest = manifest();
        let mut sources = files(&ui().join("src"));
        sources.extend(
            [
                "build.mjs",
                "package-lock.json",
                "package.json",
                "tsconfig.json",
            ]
            .map(str::to_owned),
        );
        sources.sort();
        let recorded = manifest["sources"].as_object().unwrap();
        let names: Vec<&String> = recorded.keys().collect();
        assert_eq!(names, sources.iter().collect::<Vec<_>>(), "run `make ui`");
        for name in &sources {
            assert_eq!(
                recorded[name],
                hash(&ui().join(name)),
                "{name} changed: run `make ui`"
            );
        }
        let mut built = files(&ui().join("dist"));
        built.retain(|name| name != "dist/manifest.json");
        let recorded = manifest["dist"].as_object().unwrap();
        assert_eq!(
            recorded.keys().collect::<Vec<_>>(),
            built.iter().collect::<Vec<_>>()
        );
        assert_eq!(ASSETS.len(), built.len());
        for name in &built {
            assert_eq!(
                recorded[name],
                hash(&ui().join(name)),
                "{name} was edited: run `make ui`"
            );
        }
    }

    /// The whole page, compressed as a web server would.
    #[test]
    fn the_page_is_light() {
        let gzipped = |body: &[u8]| {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(body).unwrap();
            encoder.finish().unwrap().len()
        };
        let total: usize = ASSETS.iter().map(|asset| gzipped(asset.body)).sum();
        say!("the page: {total} bytes gzipped, of at most {MAX_GZIPPED}");
        assert!(total < MAX_GZIPPED, "{total}");
    }

    /// No file names another machine; the page's own text holds no script, no style and no handler.
    #[test]
    fn the_page_asks_nobody_else() {
        for asset in ASSETS {
            let text = std::str::from_utf8(asset.body).unwrap();
            // The names of XML's languages are addresses that nobody visits.
            let text = text.replace("http://www.w3.org/", "");
            for scheme in [
                "http://",
                "https://",
                "ws://",
                "wss://",
                "src=\"//",
                "href=\"//",
                "url(//",
            ] {
                assert!(!text.contains(scheme), "{} holds {scheme}", asset.path);
            }
        }
        let html = std::str::from_utf8(ASSETS[0].body).unwrap();
        for inline in [
            "<style",
            "style=",
            "onload",
            "onclick",
            "onerror",
            "javascript:",
            "<script>",
        ] {
            assert!(!html.contains(inline), "{inline}");
        }
    }
}
