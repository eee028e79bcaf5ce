//! What an image measures to.

use std::path::Path;
use std::{fs, io};

use serde::{Deserialize, Serialize};

use crate::Pcr;

/// The PCRs that name an enclave image. As JSON: `{"PCR0": "…", "PCR1": "…", "PCR2": "…"}`, like the AWS tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE", deny_unknown_fields)]
pub struct Measurements {
    /// All of the image: kernel, command line and every ramdisk.
    pub pcr0: Pcr,
    /// Kernel, command line and the first ramdisk (the runtime).
    pub pcr1: Pcr,
    /// The other ramdisks (the application).
    pub pcr2: Pcr,
}

impl Measurements {
    /// What an enclave in debug mode reports.
    pub const ZERO: Self = Self { pcr0: Pcr::ZERO, pcr1: Pcr::ZERO, pcr2: Pcr::ZERO };

    /// Measures an image: `boot` is the kernel and its command line, `runtime` the first ramdisk, `application` the
    /// others, each as one or more parts that follow each other.
    pub fn of_parts(boot: &[&[u8]], runtime: &[&[u8]], application: &[&[u8]]) -> Self {
        Self {
            pcr0: Pcr::measure(&[boot, runtime, application].concat()),
            pcr1: Pcr::measure(&[boot, runtime].concat()),
            pcr2: Pcr::measure(application),
        }
    }

    /// Measures an enclave that runs as local processes: without a kernel, its first program as the runtime, its sign
    /// service and configuration as the application. Errors name the file.
    pub fn of_process_files(enclave: &Path, sign_service: &Path, config: &Path) -> io::Result<Self> {
        let (enclave, sign_service, config) = (read(enclave)?, read(sign_service)?, read(config)?);
        Ok(Self::of_parts(&[], &[&enclave], &[&sign_service, &config]))
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    fs::read(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pcr_covers_its_part_of_the_image() {
        let measured = Measurements::of_parts(&[b"kernel", b"cmdline"], &[b"init"], &[b"service", b"config"]);
        assert_eq!(measured.pcr0, Pcr::measure(&[b"kernelcmdlineinitserviceconfig"]));
        assert_eq!(measured.pcr1, Pcr::measure(&[b"kernelcmdlineinit"]));
        assert_eq!(measured.pcr2, Pcr::measure(&[b"serviceconfig"]));
    }

    #[test]
    fn process_files_measure_like_an_image_without_a_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let [enclave, service, config] = ["enclave", "service", "config"].map(|name| {
            let path = directory.path().join(name);
            fs::write(&path, name).unwrap();
            path
        });
        let measured = Measurements::of_process_files(&enclave, &service, &config).unwrap();
        assert_eq!(measured, Measurements::of_parts(&[], &[b"enclave"], &[b"service", b"config"]));

        fs::write(&config, "changed").unwrap();
        let changed = Measurements::of_process_files(&enclave, &service, &config).unwrap();
        assert_eq!(changed.pcr1, measured.pcr1);
        assert_ne!(changed.pcr0, measured.pcr0);
        assert_ne!(changed.pcr2, measured.pcr2);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error =
            Measurements::of_process_files(Path::new("/nowhere/enclave"), Path::new("/"), Path::new("/"));
        assert!(error.unwrap_err().to_string().contains("/nowhere/enclave"));
    }
}
