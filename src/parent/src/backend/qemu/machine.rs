//! What QEMU and the kernel in it are told.

use super::{MONITOR, VHOST_NSM, VHOST_VSOCK, image};
use crate::backend::BackendError;

/// The longest command line that the kernel reads whole, bytes (COMMAND_LINE_SIZE of x86, with its end), less what QEMU
/// itself adds for the two devices, which is less than 64 bytes for each.
const MAX_COMMAND_LINE: usize = 2048 - 1 - 2 * 64;

/// QEMU's arguments. Paths are relative to the launch's directory.
///
/// The machine is as small as the enclave's kernel expects: no PCI, no ACPI, devices over MMIO. Its memory is a file that
/// is shared with the devices, and 33 is the virtio device type of an NSM.
pub(super) fn arguments(memory_mib: u32, command_line: &str) -> Vec<String> {
    let memory = format!("memory-backend-memfd,id=mem0,size={memory_mib}M,share=on");
    let vsock = format!("socket,id=vsock,path={VHOST_VSOCK}");
    let nsm = format!("socket,id=nsm,path={VHOST_NSM}");
    let monitor = format!("unix:{MONITOR},server=on,wait=off");
    let options: [&[&str]; 15] = [
        &["-M", "microvm,acpi=off,pcie=off,accel=tcg,memory-backend=mem0"],
        &["-object", &memory],
        &["-cpu", "max"],
        // With one processor the machine ends when the guest ends it.
        &["-smp", "1"],
        &["-no-reboot", "-nodefaults", "-no-user-config"],
        &["-display", "none"],
        &["-serial", "stdio"],
        &["-chardev", &vsock],
        &["-device", "vhost-user-vsock-device,chardev=vsock"],
        &["-chardev", &nsm],
        &["-device", "vhost-user-test-device,chardev=nsm,virtio-id=33,num_vqs=1,vq_size=64"],
        &["-qmp", &monitor],
        &["-kernel", image::KERNEL],
        &["-initrd", image::INITRD],
        &["-append", command_line],
    ];
    options.concat().into_iter().map(str::to_owned).collect()
}

/// The image's command line and what this machine needs behind it.
///
/// What is appended is no part of the image and changes no PCR. That is no loss: who starts a machine of this backend
/// plays the hypervisor as well, and could change everything in it. On Nitro nobody can append anything.
///
/// - `nitro_sign.parent_cid=2`: the vsock device drops what the guest sends to context id 3, where a Nitro parent is.
/// - `reboot=t`: a triple fault ends QEMU; the image's own `reboot=k` needs a keyboard controller, and without one the
///   machine resets in a loop.
/// - `tsc=reliable tsc_early_khz=`: the guest's counter is the host's, and there is no other clock to measure it by, so
///   that delays would be wrong.
pub(super) fn command_line(image: &str, tsc_khz: Option<u64>, extra: &str) -> Result<String, BackendError> {
    let clock = tsc_khz.map(|khz| format!("tsc=reliable tsc_early_khz={khz}")).unwrap_or_default();
    let parts = [image, "nitro_sign.parent_cid=2 reboot=t", &clock, extra];
    let line = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    if line.len() > MAX_COMMAND_LINE {
        return Err(BackendError::CommandLine { actual: line.len(), limit: MAX_COMMAND_LINE });
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_appended_stands_behind_the_images_own_and_the_operators_last() {
        let line = command_line("reboot=k quiet", Some(2_596_136), "loglevel=7 a=b").unwrap();
        assert_eq!(
            line,
            "reboot=k quiet nitro_sign.parent_cid=2 reboot=t tsc=reliable tsc_early_khz=2596136 loglevel=7 a=b"
        );
        assert_eq!(command_line("quiet", None, "").unwrap(), "quiet nitro_sign.parent_cid=2 reboot=t");
    }

    #[test]
    fn a_command_line_that_the_kernel_would_cut_is_refused() {
        let fits = "x".repeat(MAX_COMMAND_LINE - " nitro_sign.parent_cid=2 reboot=t".len());
        command_line(&fits, None, "").unwrap();
        let error = command_line(&format!("{fits}x"), None, "").unwrap_err();
        assert!(error.to_string().contains("extra_command_line"), "{error}");
    }

    #[test]
    fn the_machine_has_the_configured_memory_and_the_command_line_as_one_argument() {
        let arguments = arguments(96, "a b,c");
        assert!(arguments.contains(&"memory-backend-memfd,id=mem0,size=96M,share=on".to_owned()));
        assert_eq!(arguments[arguments.len() - 2..], ["-append", "a b,c"]);
    }
}
