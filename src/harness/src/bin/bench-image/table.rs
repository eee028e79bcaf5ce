use crate::{
    Report,
    boots::{Boot, Boots},
    sizes::{self, ratio},
};

const MB: f64 = 1e6;
/// Aims, milliseconds; the second is for one account on an idle machine.
const HEARTBEAT_AIM: f64 = 50.0;
const SERVING_AIM: f64 = 3000.0;

type Figure = fn(&Boot) -> f64;

pub(crate) fn print(report: &Report) {
    let machine = &report.machine;
    println!(
        "{}, {} cores, load {}; the enclave has 1 core and {} MiB, emulated",
        machine.processor, machine.cores, machine.load, machine.memory_mib
    );
    print_sizes(report);
    print_builds(report);
    for boots in &report.boots {
        print_boots(boots);
    }
}

fn print_sizes(report: &Report) {
    let sizes = &report.sizes;
    println!("\nImage: {:.2} MB", megabytes(sizes.bytes));
    println!("  of the aim of {:.0} MB  {:>6.2}", megabytes(sizes::AIM), sizes.of_aim);
    println!("  of the kernel alone  {:>6.2}", sizes.of_kernel);
    for section in &sizes.sections {
        part(&section.kind, section.bytes, sizes.bytes);
    }
    println!("  files, each compressed alone:");
    for file in &sizes.files {
        part(&file.path, file.compressed_bytes, sizes.bytes);
        println!("    {:<28} {:>10.3} MB before", "", megabytes(file.bytes));
    }
}

fn part(name: &str, bytes: u64, all: u64) {
    println!("    {name:<28} {:>10.3} MB {:>5.1} %", megabytes(bytes), 100.0 * ratio(bytes, all));
}

fn print_builds(report: &Report) {
    let builds = &report.build_seconds;
    for (name, seconds) in [("everything there", builds.warm), ("from nothing", builds.cold)] {
        if let Some(seconds) = seconds {
            println!("Build, {name}: {seconds:.1} s");
        }
    }
}

fn print_boots(boots: &Boots) {
    println!("\nBoot with {} accounts: median of {} (least to most)", boots.accounts, boots.all.len());
    let figures: [(&str, Figure); 5] = [
        ("kernel start to PID 1", |boot| boot.kernel_to_pid1),
        ("PID 1 to heartbeat", |boot| boot.pid1_to_heartbeat),
        ("heartbeat to SERVING", |boot| boot.heartbeat_to_serving),
        ("kernel start to SERVING", |boot| boot.kernel_to_serving),
        ("host: launch to ingress open", |boot| boot.host_launch_to_ingress),
    ];
    for (name, figure) in figures {
        let (least, most) = boots
            .all
            .iter()
            .map(figure)
            .fold((f64::MAX, 0.0), |(least, most), value| (value.min(least), value.max(most)));
        println!(
            "  {name:<30} {:>10.1} ms ({least:.1} to {most:.1}){}",
            figure(&boots.median),
            aim(name, boots)
        );
    }
    println!("  {:<30} {:>10.1} MiB", "memory in use at SERVING", boots.median.memory_used_kib / 1024.0);
    let mut steps: Vec<_> = boots.median.steps.iter().collect();
    steps.sort_by(|one, other| other.1.total_cmp(one.1));
    for (step, took) in steps.into_iter().filter(|(_, took)| **took >= 1.0) {
        println!("    {step:<28} {took:>10.1} ms");
    }
}

/// What a figure is meant to be, and the ratio to it.
fn aim(name: &str, boots: &Boots) -> String {
    let (aim, actual) = match name {
        "PID 1 to heartbeat" => (HEARTBEAT_AIM, boots.median.pid1_to_heartbeat),
        "host: launch to ingress open" if boots.accounts == 1 => {
            (SERVING_AIM, boots.median.host_launch_to_ingress)
        }
        _ => return String::new(),
    };
    format!("  aim {aim:.0} ms, ratio {:.2}", actual / aim)
}

#[allow(clippy::cast_precision_loss, reason = "sizes of files")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / MB
}
