//! A store of derivations, and `nitro-sign pcr compare` on images of them.

use std::{cell::RefCell, fs, path::Path, process::Command};

use nix_derivation::{CAHash, ContentAddressMethod, HashAlgorithm, Output};
use serde_json::{Value, json};

/// A store directory, in which nothing is built.
pub(crate) struct Store {
    directory: tempfile::TempDir,
    made: RefCell<Vec<Made>>,
}

/// What a derivation makes.
pub(crate) struct Made {
    /// The derivation's file name.
    file: String,
    /// Output path.
    output: String,
    /// Store paths: outputs of its inputs, and files.
    of: Vec<String>,
}

/// What a derivation is made of.
#[derive(Default)]
pub(crate) struct Recipe<'a> {
    pub(crate) name: &'a str,
    /// File names of derivations.
    pub(crate) inputs: &'a [&'a str],
    /// Store paths.
    pub(crate) files: &'a [String],
    pub(crate) environment: &'a [(&'a str, &'a str)],
    /// Of what is fetched, 64 hex digits.
    pub(crate) hash: Option<&'a str>,
}

impl Store {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), made: RefCell::default() }
    }

    /// Writes a derivation and returns its file name. It refers to the outputs of its inputs, as Nix's do.
    pub(crate) fn add(&self, recipe: &Recipe<'_>) -> String {
        let Recipe { name, inputs, files, environment, hash } = recipe;
        let used: Vec<_> = inputs.iter().map(|input| self.output(input)).collect();
        let (mut inputs, mut files) = (inputs.to_vec(), files.to_vec());
        inputs.sort_unstable();
        files.sort_unstable();
        let key = format!("{name}{inputs:?}{files:?}{environment:?}{hash:?}");
        let out = hash.map_or_else(|| path(&key, name), |hash| fixed_output(hash, name));
        let mut variables = environment.to_vec();
        let of = used.iter().chain(&files).cloned().collect();
        let used = used.join(" ");
        variables.extend([("buildInputs", used.as_str()), ("name", name), ("out", &out)]);
        variables.sort_unstable();
        let method = hash.map_or_else(String::new, |_| "sha256".to_owned());
        let text = format!(
            "Derive([(\"out\",\"{out}\",\"{method}\",\"{}\")],[{}],[{}],\"x86_64-linux\",\"/bin/sh\",[\"-e\"],[{}])",
            hash.unwrap_or_default(),
            list(inputs.iter().map(|input| format!("(\"/nix/store/{input}\",[\"out\"])"))),
            list(files.iter().map(|file| format!("\"{file}\""))),
            list(variables.iter().map(|(name, value)| format!("(\"{name}\",\"{value}\")"))),
        );
        let file = path(&format!("{key}.drv"), &format!("{name}.drv")).replace("/nix/store/", "");
        fs::write(self.path().join(&file), text).unwrap();
        self.made.borrow_mut().push(Made { file: file.clone(), output: out, of });
        file
    }

    pub(crate) fn output(&self, file: &str) -> String {
        self.made.borrow().iter().find(|made| made.file == file).unwrap().output.clone()
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// What an image says that this derivation made. Images of two numbers have another PCR0.
    pub(crate) fn provenance(&self, derivation: &str, number: u8) -> Value {
        let made = self.made.borrow();
        let sources = made.iter().filter(|made| made.file == derivation).flat_map(|made| &made.of);
        let input = |(index, source): (usize, &String)| {
            let (path, source) = (format!("/{index}"), format!("{source}/bin/program"));
            json!({ "section": "ramdisk 1", "path": path, "sha256": "00", "bytes": 1, "mode": "755", "source": source })
        };
        let (changed, zero) = (number.to_string().repeat(96), "0".repeat(96));
        json!({
            "format": 1,
            "image_sha256": "00",
            "pcrs": { "PCR0": changed, "PCR1": zero, "PCR2": zero },
            "sections": [{ "section": "ramdisk 1", "sha384": changed, "bytes": 1, "pcrs": [0] }],
            "inputs": sources.enumerate().map(input).collect::<Vec<_>>(),
            "built_with": {},
        })
    }

    /// Compares images of these derivations with more arguments: exit code, standard output, standard error.
    pub(crate) fn run(&self, base: &str, head: &str, arguments: &[&str]) -> (i32, String, String) {
        let images = [self.provenance(base, 0), self.provenance(head, 1)];
        self.run_on(&images, &[&["--derivations", base, head], arguments].concat())
    }

    pub(crate) fn run_on(&self, images: &[Value; 2], arguments: &[&str]) -> (i32, String, String) {
        for (name, image) in ["base.json", "head.json"].into_iter().zip(images) {
            fs::write(self.path().join(name), image.to_string()).unwrap();
        }
        let output = Command::new(env!("CARGO_BIN_EXE_nitro-sign"))
            .args(["pcr", "compare", "base.json", "head.json"])
            .args(arguments)
            .current_dir(self.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// The packages that it names.
    pub(crate) fn packages(&self, base: &str, head: &str) -> Value {
        let (code, stdout, stderr) = self.run(base, head, &[]);
        assert_eq!(code, 1, "{stderr}");
        serde_json::from_str::<Value>(&stdout).unwrap()["packages"].clone()
    }

    /// An image of a kernel and a program, and tools beneath both.
    pub(crate) fn image(&self, linux: &str, rustc: &str, script: &str, source: &str) -> String {
        let hash = if linux == "6.12.94" { "aa" } else { "bb" }.repeat(32);
        let tarball = format!("linux-{linux}.tar.xz");
        let tarball = self.add(&Recipe { name: &tarball, hash: Some(&hash), ..Recipe::default() });
        let tools =
            self.add(&Recipe { name: "tools-1.0", environment: &[("rustc", rustc)], ..Recipe::default() });
        let versions = [("pname", "linux"), ("version", linux)];
        let name = format!("linux-{linux}");
        let kernel = self.add(&Recipe {
            name: &name,
            inputs: &[&tarball, &tools],
            environment: &versions,
            ..Recipe::default()
        });
        let versions = [("pname", "rustc"), ("version", rustc)];
        let name = format!("rustc-{rustc}");
        let rustc = self.add(&Recipe { name: &name, environment: &versions, ..Recipe::default() });
        let program = self.add(&Recipe {
            name: "enclave",
            inputs: &[&rustc],
            files: &[path(source, "source")],
            environment: &[("buildPhase", script)],
            ..Recipe::default()
        });
        self.add(&Recipe { name: "image-eif", inputs: &[&kernel, &program], ..Recipe::default() })
    }
}

fn list(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

/// A store path whose hash follows from `key`.
pub(crate) fn path(key: &str, name: &str) -> String {
    let hash = attestation::sha384(key.as_bytes());
    // Nix's base 32 has no e.
    format!("/nix/store/{}-{name}", hex::encode(hash)[..32].replace('e', "z"))
}

/// Where Nix puts a file with this SHA-256.
fn fixed_output(hash: &str, name: &str) -> String {
    let hash = hex::decode(hash).unwrap();
    let ca = CAHash::from_parts(ContentAddressMethod::Flat, HashAlgorithm::Sha256, &hash).unwrap();
    Output::Fixed { ca }.path(name, "out").unwrap().unwrap().to_absolute_path()
}
