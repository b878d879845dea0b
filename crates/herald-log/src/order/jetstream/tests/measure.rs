use super::*;
use futures_util::{StreamExt, stream::FuturesOrdered};
use std::time::Instant as Clock;

fn ticks(pid: &str) -> f64 {
    let s = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest: Vec<&str> = s.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    if rest.len() < 13 {
        return 0.0;
    }
    (rest[11].parse::<f64>().unwrap() + rest[12].parse::<f64>().unwrap()) / 100.0
}
fn servers() -> Vec<String> {
    let me = std::process::id().to_string();
    std::fs::read_dir("/proc")
        .unwrap()
        .filter_map(|e| {
            let n = e.unwrap().file_name().into_string().unwrap();
            let s = std::fs::read_to_string(format!("/proc/{n}/stat")).ok()?;
            let rest: Vec<&str> = s.rsplit(')').next()?.split_whitespace().collect();
            (s.contains("(nats-server)") && rest[1] == me).then_some(n)
        })
        .collect()
}
fn cpu() -> (f64, f64) {
    (ticks("self"), servers().iter().map(|p| ticks(p)).sum())
}

fn pct(v: &mut Vec<f64>) -> String {
    v.sort_by(f64::total_cmp);
    format!("p50 {:.2} p99 {:.2} ms", v[v.len() / 2], v[v.len() * 99 / 100])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn measure_append() {
    let cluster = Cluster::start(3).await.unwrap();
    for (conn, url) in [("any", cluster.url())] {
        let e = engine(&url);
        e.create(&identity(1)).await.unwrap();
        let mut f = super::following::again(&e, Position(1)).await;
        tokio::spawn(async move {
            loop {
                if f.next().await.is_err() {
                    return;
                }
            }
        });
        let mut at = e.look().await.unwrap().unwrap().newest.0 + 1;
        let body = Bytes::from(vec![b'x'; 1000]);
        for round in 0..3 {
            for depth in [1usize, 2, 4, 8] {
                let (t, c) = (Clock::now(), cpu());
                let mut flight = FuturesOrdered::new();
                let (mut done, mut conflicts) = (0u64, 0);
                let mut lat = Vec::new();
                while t.elapsed().as_secs_f64() < 4.0 || !flight.is_empty() {
                    while flight.len() < depth && t.elapsed().as_secs_f64() < 4.0 {
                        let en = Entry { frame: body.clone(), ..entry(at) };
                        at += 1;
                        let e = &e;
                        flight.push_back(async move {
                            let b = Clock::now();
                            (e.append(&en).await, b.elapsed().as_secs_f64() * 1e3)
                        });
                    }
                    let (o, l) = flight.next().await.unwrap();
                    match o {
                        Ok(()) => {
                            done += 1;
                            lat.push(l)
                        }
                        Err(AppendFailure::Conflict) => conflicts += 1,
                        Err(x) => panic!("{x:?}"),
                    }
                    if conflicts > 0 {
                        while flight.next().await.is_some() {}
                        at = e.look().await.unwrap().unwrap().newest.0 + 1;
                    }
                }
                let (s, d) = (t.elapsed().as_secs_f64(), cpu());
                println!(
                    "{round} {conn} depth {depth}: {:.0}/s conflicts {conflicts} {}; cpu self {:.2} servers {:.2} cores",
                    done as f64 / s,
                    pct(&mut lat),
                    (d.0 - c.0) / s,
                    (d.1 - c.1) / s
                );
            }
        }
        // the bare client, plain publishes and acks, depth 1
        let session = e.link.session(Instant::now() + HANG).await.unwrap();
        let subject = e.link.target.subject(identity(1).log_id);
        for round in 0..2 {
            let (t, c, mut done) = (Clock::now(), cpu(), 0u64);
            let mut lat = Vec::new();
            while t.elapsed().as_secs_f64() < 4.0 {
                let b = Clock::now();
                session.client.request(subject.clone(), body.clone()).await.unwrap();
                lat.push(b.elapsed().as_secs_f64() * 1e3);
                done += 1;
            }
            let (s, d) = (t.elapsed().as_secs_f64(), cpu());
            println!(
                "{round} bare unconditional depth 1: {:.0}/s {}; cpu self {:.2} servers {:.2}",
                done as f64 / s,
                pct(&mut lat),
                (d.0 - c.0) / s,
                (d.1 - c.1) / s
            );
        }
    }
}

async fn push_consumer(
    session: &session::Session,
    from: u64,
    subject: &str,
) -> async_nats::Subscriber {
    let inbox = session.client.new_inbox();
    let sub = session.client.subscribe(inbox.clone()).await.unwrap();
    let name = format!("p{}", Uuid::new_v4().simple());
    let q = json!({"stream_name": "HERALD", "config": {"name": name, "deliver_subject": inbox, "deliver_policy": "by_start_sequence",
        "opt_start_seq": from, "ack_policy": "none", "flow_control": true, "idle_heartbeat": 500_000_000, "num_replicas": 1, "mem_storage": true, "filter_subject": subject, "replay_policy": "instant"}});
    session
        .call(
            &format!("$JS.API.CONSUMER.CREATE.HERALD.{name}.{subject}"),
            &q,
            Instant::now() + HANG,
        )
        .await
        .unwrap();
    sub
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn measure_follow() {
    const N: u64 = 1_000_000;
    let cluster = Settings { nodes: 1, sync_interval: "2m".to_owned(), ..Settings::default() }
        .start()
        .await
        .unwrap();
    let e = engine(&cluster.url());
    e.create(&identity(1)).await.unwrap();
    e.look().await.unwrap();
    let session = e.link.session(Instant::now() + HANG).await.unwrap();
    let subject = e.link.target.subject(identity(1).log_id);
    let body = Bytes::from(vec![b'x'; 300]);
    let t = Clock::now();
    futures_util::stream::iter(1..=N)
        .map(|_| session.client.request(subject.clone(), body.clone()))
        .buffered(2000)
        .for_each(|r| {
            r.unwrap();
            std::future::ready(())
        })
        .await;
    println!("stored in {:?}", t.elapsed());
    for round in 0..3 {
        let (t, c) = (Clock::now(), cpu());
        let mut f = e.follow(Position(1)).await.unwrap();
        let (mut n, mut g) = (0u64, 0u64);
        while n < N {
            let x = f.next().await.unwrap();
            n += x.batches.len() as u64;
            g += 1;
        }
        let (s, d) = (t.elapsed().as_secs_f64(), cpu());
        println!(
            "{round} pull: {:.0}/s in {s:.2} s, {g} groups; cpu self {:.2} server {:.2} cores",
            n as f64 / s,
            (d.0 - c.0) / s,
            (d.1 - c.1) / s
        );
        drop(f);
        let (t, c) = (Clock::now(), cpu());
        let mut sub = push_consumer(&session, 1, &subject).await;
        let (mut n, mut fc) = (0u64, 0u64);
        let mut last = 0;
        while n < N {
            let m = tokio::time::timeout(Duration::from_secs(5), sub.next())
                .await
                .unwrap_or_else(|_| panic!("stuck at {n}"))
                .unwrap();
            if let Some(st) = m.status {
                let _ = st;
                if let Some(r) = m.reply {
                    session.client.publish(r, Bytes::new()).await.unwrap();
                    fc += 1;
                } else if let Some(r) =
                    m.headers.as_ref().and_then(|h| h.get("Nats-Consumer-Stalled"))
                {
                    session.client.publish(r.as_str().to_owned(), Bytes::new()).await.unwrap();
                }
                continue;
            }
            let seq: u64 =
                m.reply.as_ref().unwrap().split('.').rev().nth(3).unwrap().parse().unwrap();
            assert!(seq > last, "order");
            if seq != last + 1 {
                println!("gap at {last}->{seq}");
                break;
            }
            last = seq;
            n += 1;
        }
        let (s, d) = (t.elapsed().as_secs_f64(), cpu());
        println!(
            "{round} push+fc bare: {:.0}/s in {s:.2} s, {fc} fc; cpu self {:.2} server {:.2} cores",
            n as f64 / s,
            (d.0 - c.0) / s,
            (d.1 - c.1) / s
        );
    }
    // plain core delivery in the same process
    for round in 0..2 {
        let other = engine(&cluster.url());
        let sub_s = other.link.session(Instant::now() + HANG).await.unwrap();
        let mut sub = sub_s.client.subscribe("bare").await.unwrap();
        sub_s.client.flush().await.unwrap();
        let t = Clock::now();
        let c = cpu();
        let (cl, b) = (session.client.clone(), body.clone());
        let sem = Arc::new(tokio::sync::Semaphore::new(8000));
        let s2 = sem.clone();
        tokio::spawn(async move {
            for _ in 0..N {
                s2.acquire().await.unwrap().forget();
                cl.publish("bare", b.clone()).await.unwrap();
            }
        });
        let mut n = 0;
        while n < N {
            sub.next().await.unwrap();
            n += 1;
            sem.add_permits(1);
        }
        let (s, d) = (t.elapsed().as_secs_f64(), cpu());
        println!(
            "{round} core pub+sub same process: {:.0}/s; cpu self {:.2} server {:.2}",
            n as f64 / s,
            (d.0 - c.0) / s,
            (d.1 - c.1) / s
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore]
async fn measure_latency() {
    let cluster = Cluster::start(3).await.unwrap();
    let (a, b) = (engine(&cluster.url()), engine(&cluster.url()));
    a.create(&identity(1)).await.unwrap();
    let mut f = super::following::again(&b, Position(1)).await;
    a.look().await.unwrap();
    let sb = b.link.session(Instant::now() + HANG).await.unwrap();
    let subject = b.link.target.subject(identity(1).log_id);
    let mut push = push_consumer(&sb, 1, &subject).await;
    let (ptx, mut prx) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(m) = push.next().await {
            if m.status.is_none() {
                ptx.send(Clock::now()).unwrap();
            } else if let Some(r) = m.reply {
                let _ = sb.client.publish(r, Bytes::new()).await;
            }
        }
    });
    let (tx, mut rx) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let Ok(x) = f.next().await else { return };
            for _ in x.batches {
                let _ = tx.send(Clock::now());
            }
        }
    });
    let (mut ack, mut fol, mut pus, mut gap) = (vec![], vec![], vec![], vec![]);
    let body = Bytes::from(vec![b'x'; 1000]);
    for at in 1..=2000 {
        let t = Clock::now();
        a.append(&Entry { frame: body.clone(), ..entry(at) }).await.unwrap();
        let done = Clock::now();
        let seen = rx.recv().await.unwrap();
        let p = prx.recv().await.unwrap();
        ack.push((done - t).as_secs_f64() * 1e3);
        fol.push((seen - t).as_secs_f64() * 1e3);
        pus.push((p - t).as_secs_f64() * 1e3);
        gap.push(seen.saturating_duration_since(done).as_secs_f64() * 1e3);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!(
        "ack {}; follow (pull) {}; push {}; follow behind ack {}",
        pct(&mut ack),
        pct(&mut fol),
        pct(&mut pus),
        pct(&mut gap)
    );
}
