//! Prints the tables of docs/scaling.md from costs that were measured elsewhere:
//! `cargo run --release --manifest-path bench/Cargo.toml --bin scaling -- --help`.

use clap::Parser;
use herald_bench::{
    report::number,
    scaling::{Costs, Demand},
};

/// How long an order is simulated, in seconds.
const SECONDS: f64 = 10.0;
const SEED: u64 = 1;
/// Parts of what is asked, down to a hundredth, at which the order is simulated; and what lies beyond.
const PARTS: [f64; 7] = [0.01, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0];
/// Over how many logs receivers are split.
const LOGS: [u32; 5] = [1, 2, 4, 8, 16];

#[derive(Parser)]
#[command(about = "What a large cluster would take, worked out from measured costs")]
struct Args {
    #[command(flatten)]
    costs: Costs,
    #[command(flatten)]
    demand: Demand,
    /// Replicas that append
    #[arg(long, default_value_t = 10)]
    replicas: usize,
}

fn main() {
    let Args { costs, demand, replicas } = Args::parse();
    println!("one order ends at {}/s: largest batches\n", number(costs.order_max()));
    println!(
        "| notifications/s | batches/s | records a batch | answered p50, p99 ms | MB/s to each follower | |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for part in PARTS {
        let rate = demand.rate * part;
        let order = costs.simulate(rate, replicas, SECONDS, SEED);
        println!(
            "| {} | {} | {} | {}, {} | {} | {} |",
            number(rate),
            number(order.batches),
            number(order.records),
            number(order.answered.0),
            number(order.answered.1),
            number(rate * costs.record_bytes / 1e6),
            if order.keeps_up { "" } else { "falls behind" }
        );
    }
    println!(
        "\n| logs | notifications/s of each | answered p99 ms | replicas if each follows all | if each follows one | cores to follow: all, one |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for logs in LOGS {
        let count = f64::from(logs);
        let order = costs.simulate(demand.rate / count, replicas, SECONDS, SEED);
        let all_batches = order.batches * count;
        let shown = |follows| {
            let replicas = costs.replicas(&demand, follows, all_batches);
            // Each log needs one replica at least.
            let least = if follows < 1.0 { logs } else { 1 };
            replicas.map_or("none is enough".to_owned(), |count| count.max(least).to_string())
        };
        let cores = |follows| costs.replica(&demand, 1.0, follows, all_batches).follows;
        println!(
            "| {logs} | {} | {}{} | {} | {} | {}, {} |",
            number(demand.rate / count),
            number(order.answered.1),
            if order.keeps_up { "" } else { " and growing" },
            shown(1.0),
            shown(1.0 / count),
            number(cores(1.0)),
            number(cores(1.0 / count)),
        );
    }
    let order = costs.simulate(demand.rate, replicas, SECONDS, SEED);
    if let Some(count) = costs.replicas(&demand, 1.0, order.batches) {
        let one = costs.replica(&demand, f64::from(count), 1.0, order.batches);
        println!(
            "\none of {count} replicas: {} streams, {} cores to follow, {} to serve, {} GiB",
            number(demand.streams / f64::from(count)),
            number(one.follows),
            number(one.serves),
            number(one.memory_gib)
        );
        println!(
            "the engine's leader sends {} MB/s to followers of this cluster, and {} MB/s to its own",
            number(demand.rate * costs.record_bytes / 1e6 * f64::from(count)),
            number(demand.rate * costs.record_bytes / 1e6 * 2.0)
        );
    }
}
