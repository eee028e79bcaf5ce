//! Images that `eif build` made, and `nitro-sign pcr` on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

pub(crate) const KERNEL: &str = "kernel";
pub(crate) const ENCLAVE: &str = "enclave";
pub(crate) const SERVICE: &str = "sign-service";
pub(crate) const CONFIG: &str = "enclave.toml";

/// Exit code, standard output, standard error.
pub(crate) struct Ended(pub(crate) i32, pub(crate) String, pub(crate) String);

pub(crate) struct World(tempfile::TempDir);

impl World {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Builds an image in directory `name` of a kernel, two programs and a configuration, of which one differs.
    pub(crate) fn image_with(&self, name: &str, changed: Option<&str>, arguments: &[&str]) {
        let directory = self.path(name);
        fs::create_dir_all(directory.join("inputs")).unwrap();
        for file in [KERNEL, ENCLAVE, SERVICE, CONFIG] {
            let version = if changed == Some(file) { "version 2, longer" } else { "version 1" };
            fs::write(directory.join("inputs").join(file), format!("{file} {version}")).unwrap();
        }
        let program = Path::new(env!("CARGO_BIN_EXE_nitro-sign")).with_file_name("eif");
        assert!(program.exists(), "{} is missing; `cargo build -p eif` makes it", program.display());
        let output = Command::new(program)
            .args(["build", "--kernel=inputs/kernel", "--kernel-version=6.12.94", "--out=."])
            .args(["--runtime=/init=inputs/enclave", "--application=/bin/sign-service=inputs/sign-service"])
            .arg("--application=/etc/nitro-sign/enclave.toml=inputs/enclave.toml:644")
            .args(arguments)
            .current_dir(directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn image(&self, name: &str, changed: Option<&str>) {
        self.image_with(name, changed, &["--command-line=quiet", "--built-with=rustc=1.95.0"]);
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_nitro-sign"))
            .arg("pcr")
            .args(arguments)
            .current_dir(self.0.path())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ended(output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// Compares and reads the answer.
    pub(crate) fn compare(&self, base: &str, head: &str, code: i32) -> Value {
        let Ended(actual, stdout, stderr) = self.run(&["compare", base, head]);
        assert_eq!(actual, code, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Compares and expects trouble that is explained with these words.
    pub(crate) fn trouble(&self, base: &str, head: &str, words: &[&str]) {
        let Ended(code, stdout, stderr) = self.run(&["compare", base, head]);
        assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
        for word in words {
            assert!(stderr.contains(word), "{word}: {stderr}");
        }
    }

    /// Writes `name`, a copy of the provenance of image `of` with a change.
    pub(crate) fn provenance(&self, name: &str, of: &str, change: impl FnOnce(&mut Value)) {
        let mut json = self.json(&format!("{of}/provenance.json"));
        change(&mut json);
        fs::write(self.path(name), json.to_string()).unwrap();
    }

    pub(crate) fn json(&self, name: &str) -> Value {
        serde_json::from_slice(&fs::read(self.path(name)).unwrap()).unwrap()
    }
}
