//! The first program in a machine that plays the parent instance: see `harness::parent_vm`.

fn main() -> anyhow::Result<()> {
    harness::parent_vm::init::run()
}
