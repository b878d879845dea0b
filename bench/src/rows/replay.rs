//! Row 9: a long past on one stream.

use std::{process::Command, time::Instant};

use anyhow::ensure;

use super::{Bench, live::samples};
use crate::{
    fill,
    measure::{Figure, Target},
    requests::{self, her_id},
    server::Server,
};

pub(super) fn replay(bench: &Bench) -> anyhow::Result<Vec<Figure>> {
    let replayed = bench.size.replayed;
    let what = format!("replay of {replayed} notifications on one stream");
    let mut figure = Figure::new("9", what, "events/s", Target::AtLeast(0.50));
    let dir = fill::stored(&bench.places, replayed, 1)?;
    let herald = bench.places.herald(&dir, &["--retention", "forever"])?;
    let (event, answer) = samples(&herald, 1)?;
    let event = bench.places.file("event", &event)?;
    let answer = bench.places.file("append-answer", &answer)?;
    let limit = bench.places.limit("bare-streams", &["--event", &event, "--answer", &answer])?;
    let query = format!("HerIds={}&Offset=0&Replay={replayed}", her_id(0));
    let request = bench.places.file("stream-request", &requests::stream(&query))?;
    for _ in 0..bench.size.rounds {
        let count = |server: &Server| {
            server.costing(|| {
                let began = Instant::now();
                let status = Command::new(bench.places.limits.join("count-lines"))
                    .args(["--address", &server.address.to_string(), "--request", &request])
                    .args(["--lines", &replayed.to_string()])
                    .stdout(std::process::Stdio::null())
                    .status()?;
                ensure!(status.success(), "the reader ended with {status}");
                Ok(replayed as f64 / began.elapsed().as_secs_f64())
            })
        };
        let ((ours, our_cpu), (theirs, their_cpu)) = (count(&herald)?, count(&limit)?);
        figure.round(ours, theirs);
        figure.cost(our_cpu / replayed as f64, their_cpu / replayed as f64);
    }
    Ok(vec![figure])
}
