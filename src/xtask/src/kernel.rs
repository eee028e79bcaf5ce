//! Kernels: Debian's source, in the version that `nix/kernel.source` pins, with fragments on top of `allnoconfig`. One takes
//! seven minutes of CPU time, so the result is kept under `target/kernel/`, in a directory named after everything that it
//! depends on. The source tree is deleted.

mod fragment;

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    command::{on_path, output, run, sha256, step, target_directory, workspace},
    packages::{Package, apt_get, header, is_root, need, program},
    programs::compilers,
};

/// The enclave's kernel: fragments in `nix/`.
pub(crate) const ENCLAVE: &[&str] = &["kernel.config"];
/// The kernel of the machine that plays the parent instance.
pub(crate) const PARENT_VM: &[&str] = &["kernel.config", "parent-vm.config"];

/// To be changed when this file builds another kernel from the same source and options.
const VERSION: u32 = 1;

const PACKAGES: [Package; 9] = [
    program("dpkg", "dpkg-deb"),
    program("xz-utils", "xz"),
    program("gcc", "gcc"),
    program("make", "make"),
    program("bc", "bc"),
    program("flex", "flex"),
    program("bison", "bison"),
    header("libc6-dev", "stdio.h"),
    header("libelf-dev", "gelf.h"),
];

/// The kernel says in its banner who built it, where and when: nobody, nowhere, never.
const ENVIRONMENT: [(&str, &str); 7] = [
    ("KBUILD_BUILD_TIMESTAMP", "1970-01-01 00:00:00 UTC"),
    ("KBUILD_BUILD_USER", "enclave"),
    ("KBUILD_BUILD_HOST", "enclave"),
    ("KBUILD_BUILD_VERSION", "1"),
    // Nothing about the git repository that the tree may be in.
    ("LOCALVERSION", ""),
    ("LC_ALL", "C"),
    ("TZ", "UTC"),
];

/// A kernel that has been built.
pub(crate) struct Kernel {
    pub(crate) image: PathBuf,
    /// All options.
    pub(crate) config: PathBuf,
    /// `uname -r`.
    pub(crate) version: String,
    pub(crate) source: Source,
}

/// A Debian package with the source of the kernel.
pub(crate) struct Source {
    package: String,
    version: String,
    sha256: String,
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} (sha256 {})", self.package, self.version, self.sha256)
    }
}

/// Builds the kernel of these fragments, or finds it built.
pub(crate) fn build(fragments: &[&str]) -> Result<Kernel> {
    let recipe = Recipe::read(fragments)?;
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    // Of two that want the same kernel at the same time, one waits for the other.
    let lock = fs::File::create(directory.join("lock"))?;
    lock.lock().with_context(|| format!("cannot lock {}", directory.display()))?;
    // What an interrupted build left, whatever it was of: a source tree has 1.8 GB.
    let work = directory.join("work");
    if work.exists() {
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let built = directory.join(format!("{}-{}", recipe.source.version, recipe.key()?));
    if !built.is_dir() {
        need(&PACKAGES)?;
        let result = recipe.compile(&work)?;
        fs::rename(&result, &built).with_context(|| format!("cannot make {}", built.display()))?;
        fs::remove_dir_all(&work).with_context(|| format!("cannot remove {}", work.display()))?;
    }
    let version = built.join("version");
    let version =
        fs::read_to_string(&version).with_context(|| format!("cannot read {}", version.display()))?;
    Ok(Kernel {
        image: built.join("bzImage"),
        config: built.join("config"),
        version: version.trim().to_owned(),
        source: recipe.source,
    })
}

/// Where sources and built kernels are.
pub(crate) fn directory() -> PathBuf {
    target_directory().join("kernel")
}

/// What the kernel is made of.
struct Recipe {
    source: Source,
    /// One behind the other; of two that say something of an option, the later one counts.
    fragments: Vec<PathBuf>,
}

impl Recipe {
    fn read(fragments: &[&str]) -> Result<Self> {
        let nix = workspace().join("nix");
        let fragments = fragments.iter().map(|name| nix.join(name)).collect();
        Ok(Self { source: Source::pinned()?, fragments })
    }

    /// All options that are asked for.
    fn options(&self) -> Result<String> {
        let read = |path: &PathBuf| {
            fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
        };
        Ok(fragment::merged(&self.fragments.iter().map(read).collect::<Result<Vec<_>>>()?))
    }

    /// Everything that the kernel's bytes depend on, as 16 hexadecimal digits.
    fn key(&self) -> Result<String> {
        let compilers: Vec<_> = compilers()?.into_iter().filter(|(name, _)| *name != "rustc").collect();
        let files = sha256(&self.fragments.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;
        let inputs = format!("{VERSION} {} {files:?} {compilers:?} {ENVIRONMENT:?}", self.source);
        let mut hash = Command::new("sha256sum").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        hash.stdin.take().context("sha256sum reads nothing")?.write_all(inputs.as_bytes())?;
        let hash = String::from_utf8(hash.wait_with_output()?.stdout)?;
        Ok(hash.get(..16).context("sha256sum prints no hash")?.to_owned())
    }

    /// Builds in `work` and returns the directory with the results, also in `work`.
    fn compile(&self, work: &Path) -> Result<PathBuf> {
        let package = self.source.fetch()?;
        fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
        step("unpack the kernel's source", Command::new("dpkg-deb").arg("-x").arg(&package).arg(work))?;
        let archive = work.join(format!("usr/src/{}.tar.xz", self.source.package));
        step("unpack it further", Command::new("tar").arg("-xf").arg(&archive).arg("-C").arg(work))?;
        let tree = work.join(&self.source.package);

        let wanted = self.options()?;
        let fragment = work.join("fragment");
        fs::write(&fragment, &wanted)?;
        let mut configure = make(&tree, &["allnoconfig"]);
        step("configure the kernel", configure.env("KCONFIG_ALLCONFIG", &fragment))?;
        let ignored = fragment::ignored(&wanted, &fs::read_to_string(tree.join(".config"))?);
        ensure!(
            ignored.is_empty(),
            "{} ask for options that the kernel's configuration did not follow; something they depend on is missing, \
             or something else selects them:\n  {}",
            self.fragments.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" and "),
            ignored.join("\n  ")
        );

        let jobs = std::thread::available_parallelism().map_or(1, usize::from);
        step(
            "build the kernel (seven minutes of CPU time, once)",
            make(&tree, &["bzImage", &format!("-j{jobs}")]),
        )?;

        let result = work.join("result");
        fs::create_dir(&result)?;
        for (from, to) in [
            ("arch/x86/boot/bzImage", "bzImage"),
            (".config", "config"),
            ("include/config/kernel.release", "version"),
        ] {
            fs::copy(tree.join(from), result.join(to))
                .with_context(|| format!("the build made no {from}"))?;
        }
        Ok(result)
    }
}

/// `make`, with nothing of the caller's environment but PATH.
fn make(tree: &Path, arguments: &[&str]) -> Command {
    let mut make = Command::new("make");
    make.arg("--silent").args(arguments).current_dir(tree);
    make.env_clear().envs(ENVIRONMENT).envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    make
}

impl Source {
    fn pinned() -> Result<Self> {
        let path = workspace().join("nix/kernel.source");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&text)
            .with_context(|| format!("{} needs one line: package, version, SHA-256", path.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let words: Vec<_> = lines.next()?.split_whitespace().collect();
        let [package, version, sha256] = words[..] else { return None };
        if lines.next().is_some() || sha256.len() != 64 {
            return None;
        }
        Some(Self { package: package.to_owned(), version: version.to_owned(), sha256: sha256.to_owned() })
    }

    /// The package's file name, as apt writes it.
    fn file_name(&self) -> String {
        format!("{}_{}_all.deb", self.package, self.version.replace(':', "%3a"))
    }

    /// The package, downloaded if it is not there, and checked.
    fn fetch(&self) -> Result<PathBuf> {
        let sources = directory().join("source");
        let file = sources.join(self.file_name());
        if !file.is_file() {
            fs::create_dir_all(&sources).with_context(|| format!("cannot make {}", sources.display()))?;
            self.download(&sources).with_context(|| {
                format!(
                    "cannot get Debian's {} {}. Either put the file (Debian's archive of snapshots keeps every \
                     version) at {}, or name a newer version in nix/kernel.source, which makes another PCR0; apt knows: {}",
                    self.package,
                    self.version,
                    file.display(),
                    self.known_versions()
                )
            })?;
        }
        let actual = sha256(&[&file])?.join("");
        ensure!(
            actual == self.sha256,
            "{}: SHA-256 is {actual}, nix/kernel.source says {}; remove the file",
            file.display(),
            self.sha256
        );
        Ok(file)
    }

    fn download(&self, into: &Path) -> Result<()> {
        if on_path("apt-get").is_none() {
            bail!("there is no apt-get on this machine");
        }
        let what = format!("{}={}", self.package, self.version);
        let get = || {
            let mut get = Command::new("apt-get");
            get.args(["download", "--quiet", "-o", "APT::Sandbox::User=root", &what]).current_dir(into);
            step(&format!("download {what}"), &mut get)
        };
        // A fresh container has no package lists, an old one has outdated ones.
        get().or_else(
            |error| if is_root() { apt_get("apt-get update").and_then(|()| get()) } else { Err(error) },
        )
    }

    fn known_versions(&self) -> String {
        let listed = output(Command::new("apt-cache").args(["madison", &self.package])).unwrap_or_default();
        let versions: Vec<_> =
            listed.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect();
        if versions.is_empty() { "none".to_owned() } else { versions.join(", ") }
    }
}

/// What a build elsewhere would download again.
pub(crate) fn copy_source(to: &Path) -> Result<()> {
    let package = Source::pinned()?.fetch()?;
    let to = to.join("kernel/source");
    fs::create_dir_all(&to)?;
    run(Command::new("cp").arg("--reflink=auto").arg(&package).arg(&to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_source_is_one_line_beside_comments() {
        let hash = "e8".repeat(32);
        let source = Source::parse(&format!("# a comment\n\nlinux-source-6.12 1:6.12.1-1 {hash}\n")).unwrap();
        assert_eq!(source.file_name(), "linux-source-6.12_1%3a6.12.1-1_all.deb");
        assert_eq!(source.sha256, hash);
        assert!(Source::parse("linux-source-6.12 6.12.1-1").is_none());
        assert!(Source::parse("linux-source-6.12 6.12.1-1 e8").is_none());
        assert!(Source::parse(&format!("a 1 {hash}\nb 1 {hash}\n")).is_none());
    }

    #[test]
    fn the_machine_of_the_parent_takes_back_of_the_enclaves_options_what_systemd_needs_and_no_other() {
        let read = |name| fs::read_to_string(workspace().join("nix").join(name)).unwrap();
        let [enclave, parent] = PARENT_VM else { panic!("two fragments") };
        assert_eq!([*enclave], ENCLAVE);
        let (enclave, parent) = (read(enclave), read(parent));
        let options: Vec<_> =
            parent.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
        assert!(options.contains(&"CONFIG_VSOCKETS_LOOPBACK=y"));
        let mut both = Vec::new();
        for line in &options {
            let (option, _) = line.split_once('=').unwrap();
            let said = [format!("{option}="), format!("# {option} is not set")];
            if enclave.lines().any(|line| said.iter().any(|start| line.starts_with(start))) {
                both.push(option);
            }
        }
        assert_eq!(both, ["CONFIG_NAMESPACES", "CONFIG_CGROUPS", "CONFIG_BPF_SYSCALL"]);
        let machine = Recipe::read(PARENT_VM).unwrap().options().unwrap();
        assert_eq!(
            fragment::ignored(&enclave, &machine),
            ["BPF_SYSCALL", "NAMESPACES", "CGROUPS"]
                .map(|option| format!("CONFIG_{option}: asked for \"is not set\", got y"))
        );
        assert!(fragment::ignored(&parent, &machine).is_empty());
    }

    #[test]
    fn the_committed_pin_can_be_read() {
        Source::pinned().unwrap();
    }
}
