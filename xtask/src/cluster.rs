//! `cargo xtask cluster`: an engine, replicas and a balancer on this machine, to play with.

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use herald_rig::{
    Engine,
    balancer::{self, Balancer},
    nats, postgres,
    replica::{Replica, Settings},
};
use tokio::{signal, time};

use crate::process::{cargo, root, run};

/// How often it is looked whether a replica has ended or come back.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Each is a whole server; more would say nothing new on one machine.
const REPLICAS_MAX: u32 = 9;

/// What to start.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Args {
    /// Where the batches are kept; `local` gives each replica a log of its own, which is no cluster
    #[arg(long, value_enum, default_value_t = Kind::Nats)]
    engine: Kind,
    /// How many replicas
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=i64::from(REPLICAS_MAX)))]
    replicas: u32,
    /// Which balancer
    #[arg(long, value_enum, default_value_t = Front::Haproxy)]
    balancer: Front,
    /// Build Herald without optimisation: sooner there, slower then
    #[arg(long)]
    debug: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Kind {
    Nats,
    Postgres,
    Local,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Front {
    Haproxy,
    Nginx,
}

/// Builds Herald, starts all, says where it is, and ends it at Ctrl-C.
pub(crate) fn all(args: &Args) -> anyhow::Result<()> {
    let (flags, profile) = if args.debug { ("", "debug") } else { ("--release", "release") };
    run(&mut cargo(&format!("build {flags} --quiet --locked --package herald")))?;
    let herald = root().join("target").join(profile).join("herald");
    let runtime = tokio::runtime::Runtime::new().context("could not make a runtime")?;
    runtime.block_on(async {
        // From here on Ctrl-C ends what has been started so far, too.
        tokio::select! {
            outcome = play(args, herald) => outcome,
            outcome = ctrl_c() => outcome,
        }
    })
}

async fn ctrl_c() -> anyhow::Result<()> {
    signal::ctrl_c().await.context("could not listen for Ctrl-C")?;
    eprintln!("\n    ending");
    Ok(())
}

async fn play(args: &Args, herald: PathBuf) -> anyhow::Result<()> {
    let engine = start_engine(args.engine).await?;
    let url = engine.as_ref().map_or("local".to_owned(), Engine::url);
    let mut replicas = Vec::new();
    for number in 1..=args.replicas {
        replicas.push(Settings::new(&format!("herald{number}"), &herald, &url).launch()?);
    }
    for replica in &replicas {
        replica.ready().await?;
    }
    let backends: Vec<_> = replicas.iter().map(Replica::backend).collect();
    let kind = match args.balancer {
        Front::Haproxy => balancer::Kind::HaProxy,
        Front::Nginx => balancer::Kind::Nginx,
    };
    let balancer = Balancer::start(kind, &backends).await?;
    tell(engine.as_ref(), &url, &replicas, &balancer, &herald);
    loop {
        time::sleep(LOOK_EVERY).await;
        if let Err(error) = mend(engine.as_ref(), &replicas).await {
            eprintln!("    {error:#}");
        }
    }
}

async fn start_engine(kind: Kind) -> anyhow::Result<Option<Engine>> {
    Ok(match kind {
        Kind::Nats => Some(Engine::Nats(nats::Cluster::start(3).await?)),
        Kind::Postgres => Some(Engine::Postgres(postgres::Cluster::start().await?)),
        Kind::Local => None,
    })
}

/// Does what an operator, or a supervisor, does when something has ended.
async fn mend(engine: Option<&Engine>, replicas: &[Replica]) -> anyhow::Result<()> {
    for replica in replicas.iter().filter(|replica| !replica.is_running()) {
        eprintln!("    {} has ended, and is started again", replica.name());
        replica.restart()?;
    }
    let Some(engine) = engine else { return Ok(()) };
    let ids = engine.ids();
    let gone = ids.iter().enumerate().filter(|(_, id)| id.is_none()).map(|(node, _)| node);
    for node in gone {
        eprintln!("    n{} has ended: another one takes over, and it comes back", node + 1);
        if !engine.has_leader().await {
            engine.fail_over(node).await?;
        }
        engine.bring_back(node).await?;
        eprintln!("    n{} is back", node + 1);
    }
    Ok(())
}

fn tell(
    engine: Option<&Engine>,
    log: &str,
    replicas: &[Replica],
    balancer: &Balancer,
    herald: &std::path::Path,
) {
    let url = balancer.url();
    let herald = herald.strip_prefix(root()).unwrap_or(herald).display();
    println!("\nthe service   {url}   ({})", balancer.dir().display());
    for replica in replicas {
        let id = replica.id().unwrap_or_default();
        println!(
            "{:<13} {}   health and metrics http://{}   process {id}   {}",
            replica.name(),
            replica.url(),
            replica.ops(),
            replica.dir().display()
        );
    }
    if let Some(engine) = engine {
        let nodes = engine.addresses().into_iter().zip(engine.ids());
        for (node, (address, id)) in nodes.enumerate() {
            let id = id.unwrap_or_default();
            let log = engine.log(node);
            println!(
                "{:<13} {}://{address}   process {id}   {}",
                format!("n{}", node + 1),
                engine.name(),
                log.display()
            );
        }
    }
    println!("--log         {log}");
    println!(
        "\nIn another terminal:\n  \
         {herald} stream --url {url} --her-id 8139764 --offset 0\n  \
         {herald} append --url {url} --her-id 8139764 --type NewMessage \\\n         \
         --message-id 0f84d750-8ce3-4471-a1ac-ab7a55e609c0\n  \
         curl -N -H 'api-version: 3' -H 'nhn-source-system: curl' -H 'Accept: text/event-stream' \\\n       \
         '{url}/notifications/stream?HerIds=8139764&Offset=0'\n\
         \nBreak it:\n  \
         kill PROCESS         a replica drains, its streams go elsewhere, and it is started again\n  \
         kill -9 PROCESS      the same without a drain; a node of the engine comes back too\n  \
         kill -STOP PROCESS   and -CONT: it is there and says nothing\n\
         \nCtrl-C ends all of it."
    );
}
