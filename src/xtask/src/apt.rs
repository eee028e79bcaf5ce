//! Debian packages of another release than this machine's, unpacked into a directory of their own: nothing is installed.
//! Their signatures are checked as always; the mirror is the one that this machine uses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};

use crate::command::{run, step};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt with its own sources, lists and cache, which believes that no package is installed.
pub(crate) struct Apt {
    directory: PathBuf,
}

impl Apt {
    /// Reads package lists into `directory`: `deb` or `deb-src`, and the name of a release.
    pub(crate) fn new(directory: &Path, lists: &[(&str, &str)]) -> Result<Self> {
        let apt = Self { directory: directory.to_owned() };
        for name in ["lists/partial", "cache/archives/partial"] {
            let path = directory.join(name);
            fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        ensure!(
            Path::new(KEYRING).is_file(),
            "no {KEYRING}; on Debian: apt-get install debian-archive-keyring"
        );
        let mirror = mirror()?;
        let line = |(kind, release): &(&str, &str)| {
            format!("{kind} [signed-by={KEYRING}] {mirror} {release} main\n")
        };
        let sources: String = lists.iter().map(line).collect();
        fs::write(directory.join("sources.list"), sources)?;
        fs::write(directory.join("status"), "")?;
        step("read the package lists of other releases", apt.get().arg("update"))?;
        Ok(apt)
    }

    fn get(&self) -> Command {
        let path = |name: &str| self.directory.join(name).display().to_string();
        let mut command = Command::new("apt-get");
        for option in [
            format!("Dir::State={}", path("")),
            format!("Dir::State::status={}", path("status")),
            format!("Dir::Cache={}", path("cache")),
            format!("Dir::Etc::SourceList={}", path("sources.list")),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            "Dir::Etc::Preferences=/dev/null".to_owned(),
            "Dir::Etc::PreferencesParts=/dev/null".to_owned(),
            "APT::Architecture=amd64".to_owned(),
            "APT::Install-Recommends=false".to_owned(),
            "APT::Sandbox::User=root".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command.arg("--quiet=2").current_dir(&self.directory);
        command
    }

    /// Downloads packages, with all that they depend on, and unpacks them below `root`.
    pub(crate) fn unpack(&self, packages: &[&str], release: &str, root: &Path) -> Result<()> {
        let mut download = self.get();
        download.args(["install", "--download-only", "--yes", "--target-release", release]).args(packages);
        step(&format!("download {} of {release}", packages.join(", ")), &mut download)?;
        unpack(&self.directory.join("cache/archives"), root)
    }

    /// Downloads packages, without what they depend on, and unpacks them below `root`.
    pub(crate) fn unpack_alone(&self, packages: &[&str], root: &Path) -> Result<()> {
        let archives = root.join("archives");
        fs::create_dir_all(&archives).with_context(|| format!("cannot make {}", archives.display()))?;
        let mut download = self.get();
        download.arg("download").args(packages).current_dir(&archives);
        step(&format!("download {}", packages.join(", ")), &mut download)?;
        unpack(&archives, root)?;
        fs::remove_dir_all(&archives).with_context(|| format!("cannot remove {}", archives.display()))
    }

    /// Downloads a source package and returns the directory it is in, with Debian's patches applied.
    pub(crate) fn source(&self, package: &str) -> Result<PathBuf> {
        let sources = self.directory.join("source");
        fs::create_dir_all(&sources).with_context(|| format!("cannot make {}", sources.display()))?;
        let mut download = self.get();
        download.args(["source", package]).current_dir(&sources).stdout(Stdio::null());
        step(&format!("download the source of {package}"), &mut download)?;
        let mut entries = fs::read_dir(&sources)?.filter_map(|entry| Some(entry.ok()?.path()));
        entries.find(|path| path.is_dir()).with_context(|| format!("apt-get unpacked no source of {package}"))
    }
}

/// Unpacks every package of a directory below `root`.
fn unpack(archives: &Path, root: &Path) -> Result<()> {
    for entry in fs::read_dir(archives).with_context(|| format!("cannot read {}", archives.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(Command::new("dpkg-deb").arg("--extract").arg(&path).arg(root))?;
        }
    }
    Ok(())
}

/// Where this machine gets Debian from.
fn mirror() -> Result<String> {
    let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = os.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME=")).unwrap_or_default();
    let mut sources = Vec::new();
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten() {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("list") => sources.extend(one_line_sources(&fs::read_to_string(&path)?)),
            Some("sources") => sources.extend(deb822_sources(&fs::read_to_string(&path)?)),
            _ => {}
        }
    }
    sources.extend(one_line_sources(&fs::read_to_string("/etc/apt/sources.list").unwrap_or_default()));
    main_archive(sources, codename.trim_matches('"')).with_context(|| {
        format!(
            "/etc/apt names no mirror for `main` of Debian's release {codename:?}; is this machine a Debian?"
        )
    })
}

/// An entry of apt's sources.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
}

/// The mirror that has the release itself; security updates and other people's packages are elsewhere.
fn main_archive(sources: Vec<Source>, codename: &str) -> Option<String> {
    let is_main = |source: &Source| {
        source.uri.starts_with("http")
            && source.suites.iter().any(|suite| suite == codename)
            && source.components.iter().any(|component| component == "main")
    };
    sources.into_iter().find(is_main).map(|source| source.uri)
}

/// `deb [options] URI SUITE COMPONENT…`, as in `sources.list`.
fn one_line_sources(text: &str) -> Vec<Source> {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let entries = lines.filter_map(|line| line.strip_prefix("deb ").map(str::trim));
    entries
        .filter_map(|entry| {
            let entry = if entry.starts_with('[') { entry.split_once(']')?.1 } else { entry };
            let mut words = entry.split_whitespace().map(str::to_owned);
            Some(Source { uri: words.next()?, suites: vec![words.next()?], components: words.collect() })
        })
        .collect()
}

/// Paragraphs of fields, as in `*.sources`.
fn deb822_sources(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for paragraph in text.split("\n\n") {
        let words = |name| -> Vec<String> {
            field(paragraph, name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        let off = words("Enabled").first().is_some_and(|value| value == "no");
        if off || !words("Types").iter().any(|kind| kind == "deb") {
            continue;
        }
        for uri in words("URIs") {
            sources.push(Source { uri, suites: words("Suites"), components: words("Components") });
        }
    }
    sources
}

/// A field's value with its continuation lines.
fn field(paragraph: &str, name: &str) -> Option<String> {
    let mut lines = paragraph.lines().filter(|line| !line.starts_with('#'));
    let first = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.to_owned())
    })?;
    let more = lines.take_while(|line| line.starts_with([' ', '\t']));
    Some(more.fold(first, |value, line| value + " " + line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb
URIs: http://mirror.example/vendor
Suites: nodistro
Components: main

Types: deb
# http://mirror.example/a-comment
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://mirror.example/off
Suites: bookworm
Components: main

types: deb deb-src
uris: http://mirror.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
";

    #[test]
    fn the_mirror_of_the_release_is_found_among_others() {
        assert_eq!(main_archive(deb822_sources(DEB822), "bookworm").unwrap(), "http://mirror.example/debian");
        let lines = "# deb http://mirror.example/off bookworm main
deb https://mirror.example/vendor vendor-bookworm main
deb [arch=amd64 signed-by=/x.gpg] https://mirror.example/debian bookworm main contrib # a comment
deb-src https://mirror.example/sources bookworm main
";
        assert_eq!(
            main_archive(one_line_sources(lines), "bookworm").unwrap(),
            "https://mirror.example/debian"
        );
    }

    #[test]
    fn continuation_lines_belong_to_the_field_above() {
        let source = deb822_sources(DEB822).pop().unwrap();
        assert_eq!(source.suites, ["bookworm", "bookworm-updates"]);
        assert_eq!(source.components, ["main", "contrib"]);
    }

    #[test]
    fn another_release_another_component_and_a_disc_are_no_mirror() {
        assert_eq!(main_archive(deb822_sources(DEB822), "trixie"), None);
        for line in ["deb http://mirror.example/debian bookworm contrib", "deb cdrom:[Debian]/ bookworm main"]
        {
            assert_eq!(main_archive(one_line_sources(line), "bookworm"), None, "{line}");
        }
    }
}
