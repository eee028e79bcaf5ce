//! `parent check-image`: the image alone, on a machine that has nothing else of what the configuration names.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails where it stands")]

use std::{
    fs::{self, File},
    process::Command,
};

use eif::{Architecture, Image, Metadata};

const MIB: usize = 1 << 20;
const OTHER_PCR0: &str = "111111111111111111111111111111111111111111111111\
                          111111111111111111111111111111111111111111111111";

/// A directory with an image of `mib` MiB and a bit, and nothing else.
struct World {
    directory: tempfile::TempDir,
    image: Image,
}

impl World {
    fn new(mib: usize) -> Self {
        Self::with(image(mib, MACHINE))
    }

    fn with(image: Image) -> Self {
        let directory = tempfile::tempdir().unwrap();
        image.write(File::create(directory.path().join("image.eif")).unwrap()).unwrap();
        Self { directory, image }
    }

    fn pcr0(&self) -> String {
        self.image.measurements().pcr0.to_string()
    }

    /// The exit code, what is printed, and what is printed on standard error. `enclave` is the backend's table.
    fn check(&self, backend: &str, pcr0: &str, enclave: &str) -> (i32, String, String) {
        let config = format!(
            "runtime_dir = \"run\"\n\
             [enclave]\nbackend = \"{backend}\"\npcr0 = \"{pcr0}\"\nattestation_root = \"aws\"\n\
             [enclave.{backend}]\n{enclave}\n\
             [ciphertexts]\nidentity = \"no/identity\"\nbundle = \"no/bundle\"\n\
             [bundle]\nepoch = 1\nsha256 = \"{}\"\n\
             [kms]\nregion = \"eu-central-1\"\nkey_id = \"k\"\ncredentials_file = \"no/credentials\"\n\
             [ingress]\nlisten = \"127.0.0.1:0\"\n",
            "22".repeat(32)
        );
        let path = self.directory.path().join("parent.toml");
        fs::write(&path, config).unwrap();
        let parent = env!("CARGO_BIN_EXE_parent");
        let output = Command::new(parent).arg("check-image").arg("--config").arg(path).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    fn check_nitro(&self, pcr0: &str, memory_mib: usize) -> (i32, String, String) {
        self.check("nitro", pcr0, &nitro(memory_mib))
    }
}

fn nitro(memory_mib: usize) -> String {
    // More processors than any machine of these tests has to give.
    format!("image = \"image.eif\"\ncpu_count = 1024\nmemory_mib = {memory_mib}")
}

#[cfg(target_arch = "aarch64")]
const MACHINE: Architecture = Architecture::Aarch64;
#[cfg(not(target_arch = "aarch64"))]
const MACHINE: Architecture = Architecture::X86_64;

fn image(mib: usize, architecture: Architecture) -> Image {
    Image {
        architecture,
        kernel: vec![0xa5; mib * MIB + 1],
        command_line: "console=ttyS0".to_owned(),
        ramdisks: vec![b"runtime".to_vec(), b"application".to_vec()],
        metadata: Metadata::new("test", "1", "6.12"),
    }
}

#[test]
fn the_pinned_image_passes_without_any_other_file_and_its_pcrs_are_printed() {
    let world = World::new(0);
    let (code, printed, problem) = world.check_nitro(&world.pcr0(), 64);
    assert_eq!(code, 0, "{problem}");
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(printed, serde_json::to_value(world.image.measurements()).unwrap());
    let left = fs::read_dir(world.directory.path()).unwrap().count();
    assert_eq!(left, 2, "it makes no directory: there are the image and the configuration");
}

#[test]
fn another_image_than_the_pinned_one_is_refused_with_both_measurements_and_the_key() {
    let world = World::new(0);
    let (code, printed, problem) = world.check_nitro(OTHER_PCR0, 64);
    assert_eq!((code, printed.as_str()), (77, ""), "{problem}");
    for part in [world.pcr0().as_str(), OTHER_PCR0, "`enclave.pcr0`", "pin this one after a review"] {
        assert!(problem.contains(part), "{part}: {problem}");
    }
}

#[test]
fn less_memory_than_four_times_the_image_is_refused_with_what_would_do() {
    let world = World::new(20);
    let (code, printed, problem) = world.check_nitro(&world.pcr0(), 80);
    assert_eq!((code, printed.as_str()), (78, ""), "{problem}");
    assert!(problem.contains("set `enclave.nitro.memory_mib` to 81 or more, it is 80"), "{problem}");
    assert_eq!(world.check_nitro(&world.pcr0(), 81).0, 0);
}

#[test]
fn less_memory_than_any_enclave_has_is_refused() {
    let world = World::new(0);
    let (code, _, problem) = world.check_nitro(&world.pcr0(), 63);
    assert_eq!(code, 78, "{problem}");
    assert!(problem.contains("`enclave.nitro.memory_mib`: expected 64 to"), "{problem}");
}

#[test]
fn an_image_for_another_processor_is_refused() {
    let other = if MACHINE == Architecture::X86_64 { Architecture::Aarch64 } else { Architecture::X86_64 };
    let world = World::with(image(0, other));
    let (code, _, problem) = world.check_nitro(&world.pcr0(), 64);
    assert_eq!(code, 78, "{problem}");
    assert!(problem.contains("`enclave.nitro.image`"), "{problem}");
}

#[test]
fn an_image_that_is_missing_or_is_none_is_refused_by_name() {
    let world = World::new(0);
    let image = world.directory.path().join("image.eif");
    fs::write(&image, "no image").unwrap();
    for _ in 0..2 {
        let (code, _, problem) = world.check_nitro(&world.pcr0(), 64);
        assert_eq!(code, 77, "{problem}");
        assert!(problem.contains("image.eif") && problem.contains("`enclave.nitro.image`"), "{problem}");
        let _ = fs::remove_file(&image);
    }
}

#[test]
fn the_image_of_an_emulated_machine_is_checked_as_well() {
    let world = World::with(image(20, Architecture::X86_64));
    let machine = "image = \"image.eif\"\nqemu = [\"no/qemu\"]\nvsock_device = [\"no/vsock\"]\nnsm_device = [\"no/nsm\"]";
    assert_eq!(world.check("qemu", &world.pcr0(), machine).0, 0);
    assert_eq!(world.check("qemu", OTHER_PCR0, machine).0, 77);
    let (code, _, problem) = world.check("qemu", &world.pcr0(), &format!("{machine}\nmemory_mib = 80"));
    assert_eq!(code, 78, "{problem}");
    assert!(problem.contains("set `enclave.qemu.memory_mib` to 81"), "{problem}");
}

#[test]
fn the_programs_of_the_backend_process_are_checked_without_their_hypervisor() {
    let world = World::new(0);
    for (name, content) in [("enclave", "e"), ("sign-service", "s"), ("enclave.toml", "c")] {
        fs::write(world.directory.path().join(name), content).unwrap();
    }
    let programs = "enclave = \"enclave\"\nsign_service = \"sign-service\"\nconfig = \"enclave.toml\"\n\
                    hypervisor = [\"no/emulator\"]";
    let (code, _, problem) = world.check("process", OTHER_PCR0, programs);
    assert_eq!(code, 77, "{problem}");
    let (_, measured) = problem.split_once("has PCR0 ").unwrap();
    assert_eq!(world.check("process", &measured[..96], programs).0, 0);
}
