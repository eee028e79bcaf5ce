use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    Status, World,
    events::{self, Event},
};
use serde::Serialize;

/// Longer than any boot of an emulated machine that goes on at all.
const BOOT_TIMEOUT: Duration = Duration::from_mins(30);
/// No boot is begun once those before it, with as many accounts, have taken longer than this.
const BUDGET: Duration = Duration::from_mins(3);

/// Boots with the same accounts.
#[derive(Serialize)]
pub(crate) struct Boots {
    pub(crate) accounts: usize,
    /// Of each figure the median of all boots.
    pub(crate) median: Boot,
    pub(crate) all: Vec<Boot>,
}

/// Milliseconds by the guest's clock, unless it says otherwise.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Boot {
    /// From the kernel's first look at a clock to the first line of PID 1.
    pub(crate) kernel_to_pid1: f64,
    pub(crate) pid1_to_heartbeat: f64,
    /// To the service's SERVING, the plaintext file being gone.
    pub(crate) heartbeat_to_serving: f64,
    pub(crate) kernel_to_serving: f64,
    /// By the host's clock: from the start of QEMU and the devices to ingress open, the node being verified.
    pub(crate) host_launch_to_ingress: f64,
    /// At SERVING.
    pub(crate) memory_used_kib: f64,
    /// Of the enclave's steps.
    pub(crate) steps: BTreeMap<String, f64>,
}

impl Boots {
    /// Boots once at least, and at most `runs` times.
    pub(crate) fn measure(world: &World, runs: u32) -> Result<Self> {
        let limit = i64::try_from(BOOT_TIMEOUT.as_millis())?;
        world.write_parent_toml(|parent| parent["limits"]["boot_timeout_ms"] = limit.into())?;
        let start = Instant::now();
        let mut all = vec![boot(world)?];
        for _ in 1..runs {
            if start.elapsed() > BUDGET {
                break;
            }
            all.push(boot(world)?);
        }
        Ok(Self { accounts: world.accounts.len(), median: median(&all), all })
    }
}

fn boot(world: &World) -> Result<Boot> {
    let mut node = world.start_parent()?;
    let status = node.wait_serving_within(BOOT_TIMEOUT, |_| {})?;
    let served = status.0["accounts"].as_u64();
    ensure!(served == Some(world.accounts.len() as u64), "{served:?} accounts are served");
    let exit = node.program.stop()?;
    ensure!(exit.success(), "the parent did not stop cleanly: {exit}\n{}", node.program.log_tail());
    figures(&events::last_boot(world)?, &status)
}

fn figures(events: &BTreeMap<String, Event>, status: &Status) -> Result<Boot> {
    let event = |step: &str| events.get(step).with_context(|| format!("the boot had no step {step}"));
    let number = |step: &str, detail: &str| -> Result<f64> { Ok(event(step)?.detail(detail)?.parse()?) };
    let pid1 = number("set_up", "uptime_us")? / 1000.0;
    let heartbeat = number("heartbeat", "uptime_us")? / 1000.0;
    // Between the two the clock may have been set.
    let apart = milliseconds(event("ready")?.unix_ms) - milliseconds(event("heartbeat")?.unix_ms);
    let serving = apart - number("set_clock", "offset_ms")?;
    Ok(Boot {
        kernel_to_pid1: pid1,
        pid1_to_heartbeat: heartbeat - pid1,
        heartbeat_to_serving: serving,
        kernel_to_serving: heartbeat + serving,
        host_launch_to_ingress: entered(status, "Serving")? - entered(status, "Launching")?,
        memory_used_kib: number("ready", "memory_used_kib")?,
        steps: events
            .values()
            .map(|event| (event.step.clone(), event.duration.as_secs_f64() * 1000.0))
            .collect(),
    })
}

/// When the parent entered a state, Unix time in milliseconds.
fn entered(status: &Status, state: &str) -> Result<f64> {
    let history = status.0["history"].as_array().context("the parent's status has no history")?;
    let entry = history.iter().find(|entry| entry["state"] == state);
    let time = entry.and_then(|entry| entry["unix_ms"].as_u64());
    time.map(milliseconds).with_context(|| format!("the parent was never {state}"))
}

#[allow(clippy::cast_precision_loss, reason = "2^53 milliseconds are 285,000 years")]
fn milliseconds(time: u64) -> f64 {
    time as f64
}

/// Figure by figure.
fn median(boots: &[Boot]) -> Boot {
    let of = |figure: &dyn Fn(&Boot) -> f64| middle(boots.iter().map(figure).collect());
    let steps = boots.first().map(|boot| boot.steps.keys()).into_iter().flatten();
    Boot {
        kernel_to_pid1: of(&|boot| boot.kernel_to_pid1),
        pid1_to_heartbeat: of(&|boot| boot.pid1_to_heartbeat),
        heartbeat_to_serving: of(&|boot| boot.heartbeat_to_serving),
        kernel_to_serving: of(&|boot| boot.kernel_to_serving),
        host_launch_to_ingress: of(&|boot| boot.host_launch_to_ingress),
        memory_used_kib: of(&|boot| boot.memory_used_kib),
        steps: steps
            .map(|step| (step.clone(), of(&|boot| boot.steps.get(step).copied().unwrap_or_default())))
            .collect(),
    }
}

/// The one in the middle, or half-way between the two that are.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => values[odd / 2],
        even => f64::midpoint(values[even / 2 - 1], values[even / 2]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        for (values, expected) in [(vec![3.0, 1.0, 9.0], 3.0), (vec![4.0, 1.0], 2.5), (vec![7.0], 7.0)] {
            assert!((middle(values) - expected).abs() < f64::EPSILON);
        }
    }

    #[test]
    fn a_clock_that_was_set_during_the_boot_changes_no_figure() {
        let event = |step: &str, unix_ms, details: &[(&str, &str)]| {
            let details = details.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
            let duration = Duration::from_micros(1500);
            (step.to_owned(), Event { step: step.to_owned(), unix_ms, duration, details: details.collect() })
        };
        let events = BTreeMap::from([
            event("set_up", 1000, &[("uptime_us", "500000")]),
            event("heartbeat", 1010, &[("uptime_us", "530000")]),
            event("set_clock", 71_100, &[("offset_ms", "70000")]),
            event("ready", 72_010, &[("memory_used_kib", "40000")]),
        ]);
        let history =
            json!({"history": [{"state": "Launching", "unix_ms": 5}, {"state": "Serving", "unix_ms": 905}]});
        let boot = figures(&events, &Status(history)).unwrap();
        let expected = [500.0, 30.0, 1000.0, 1530.0, 900.0];
        let actual = [
            boot.kernel_to_pid1,
            boot.pid1_to_heartbeat,
            boot.heartbeat_to_serving,
            boot.kernel_to_serving,
            boot.host_launch_to_ingress,
        ];
        for (actual, expected) in actual.into_iter().zip(expected) {
            assert!((actual - expected).abs() < 1e-9, "{boot:?}");
        }
        assert!((boot.steps["ready"] - 1.5).abs() < 1e-9);
    }
}
