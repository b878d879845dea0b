//! HER-ids smuggled past the grant.

use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    guarded::{Guarded, HER_ID_CLAIM},
    herald::{EVENT_STREAM, answer, draft},
};

const OK: StatusCode = StatusCode::OK;
const INVALID: StatusCode = StatusCode::BAD_REQUEST;
const REFUSED: StatusCode = StatusCode::FORBIDDEN;

/// Each query tries to get at 400 with a token for 100. 356 is 100 beyond a byte, 65636 beyond two, and so on.
const QUERIES: [(&str, StatusCode); 60] = [
    ("HerIds=100", OK),
    ("HerIds=100&HerIds=100", OK),
    ("HerIds=400", REFUSED),
    ("HerIds=100&HerIds=400", REFUSED),
    ("HerIds=400&HerIds=100", REFUSED),
    ("HerIds=100&herids=400", REFUSED),
    ("HerIds=100&HERIDS=400", REFUSED),
    ("herIds=400&HerIds=100", REFUSED),
    ("HerIds=100&HerIds=100&HerIds=400&HerIds=100", REFUSED),
    ("%48erIds=400", REFUSED),
    ("HerIds=100&%68%65%72%69%64%73=%34%30%30", REFUSED),
    ("HerIds=100&HerIds=4%300", REFUSED),
    ("HerIds=356", REFUSED),
    ("HerIds=65636", REFUSED),
    ("HerIds=2147483647", REFUSED),
    ("HerIds=2147483648", INVALID),
    ("HerIds=2147483748", INVALID),
    ("HerIds=4294967396", INVALID),
    ("HerIds=18446744073709551716", INVALID),
    ("HerIds=340282366920938463463374607431768211556", INVALID),
    ("HerIds=-100", INVALID),
    ("HerIds=-2147483548", INVALID),
    ("HerIds=+100", INVALID),
    ("HerIds=%2B100", INVALID),
    ("HerIds=+400", INVALID),
    ("HerIds=%20100", INVALID),
    ("HerIds=100%20", INVALID),
    ("HerIds=100%0A", INVALID),
    ("HerIds=0x64", INVALID),
    ("HerIds=0b1", INVALID),
    ("HerIds=1e2", INVALID),
    ("HerIds=100.0", INVALID),
    ("HerIds=1_00", INVALID),
    ("HerIds=100%00", INVALID),
    ("HerIds=1%0000", INVALID),
    ("HerIds=1%002", INVALID),
    ("HerIds=%EF%BC%91%EF%BC%90%EF%BC%90", INVALID),
    ("HerIds=%D9%A1%D9%A0%D9%A0", INVALID),
    ("HerIds=%E0%A5%A7%E0%A5%A6%E0%A5%A6", INVALID),
    ("HerIds=%F0%9D%9F%8F%F0%9D%9F%8E%F0%9D%9F%8E", INVALID),
    ("HerIds=%C2%B9", INVALID),
    ("HerIds=%FF", INVALID),
    ("HerIds=%", INVALID),
    ("HerIds=%3", INVALID),
    ("HerIds=100,400", INVALID),
    ("HerIds=100%2C400", INVALID),
    ("HerIds=100-400", INVALID),
    ("HerIds=100;HerIds=400", INVALID),
    ("HerIds=100%26HerIds=400", INVALID),
    ("HerIds=100%26HerIds%3D400", INVALID),
    ("HerIds=100=400", INVALID),
    ("HerIds=100&HerIds=", INVALID),
    ("HerIds=100&HerIds", INVALID),
    ("HerIds=0", INVALID),
    ("HerIds=*", INVALID),
    ("HerIds[]=400", INVALID),
    // Other names mean nothing, whatever they look like.
    ("HerIds=100&HerIds[]=400&HerIds[0]=400&HerId=400&HerIds%00=400", OK),
    ("HerIds=100&HerIds%20=400&+HerIds=400&%EF%BC%A8erIds=400", OK),
    ("HerIds=100&?HerIds=400&x=?HerIds=400", OK),
    ("HerIds=100&NotificationsToFetch=1000&receivers=400", OK),
];

#[tokio::test]
async fn no_way_of_writing_a_her_id_gets_at_one_that_is_not_granted() {
    for guarded in [Guarded::start().await, Guarded::start().await.over_http2()] {
        guarded.append(&[draft(400), draft(100), draft(1), draft(200), draft(356)]).await;
        let reader = guarded.caller(json!({ HER_ID_CLAIM: "100" }));
        for (query, status) in QUERIES {
            let page = guarded.poll(&reader, &format!("{query}&Offset=0")).await;
            assert_eq!(page.status, status, "{query}: {}", page.text());
            if status == OK {
                assert_eq!(page.offsets(), [2], "{query}");
                continue;
            }
            assert!(!page.text().contains("notificationId"), "{query}");
            let stream = guarded.stream_call(&reader, &format!("{query}&Offset=0"));
            assert_eq!(answer(stream).await.status, status, "{query}");
        }
        assert_eq!(guarded.herald.streams.count(), 0);
    }
}

#[tokio::test]
async fn leading_zeros_name_the_same_her_id_or_none() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(100), draft(400)]).await;
    let reader = guarded.caller(json!({ HER_ID_CLAIM: "100" }));
    for zeros in [1, 5, 50] {
        let zeros = "0".repeat(zeros);
        let mine = guarded.poll(&reader, &format!("HerIds={zeros}100&Offset=0")).await;
        assert!(mine.status == INVALID || mine.offsets() == [1], "{}", mine.text());
        let anothers = guarded.poll(&reader, &format!("HerIds={zeros}400&Offset=0")).await;
        assert!([INVALID, REFUSED].contains(&anothers.status), "{}", anothers.text());
    }
}

#[tokio::test]
async fn a_guarded_call_may_have_1500_her_ids_and_every_one_of_them_is_looked_at() {
    let guarded = Guarded::start().await;
    let her_ids: Vec<u32> = (1..=1501).collect();
    let document = json!({ "310000000": her_ids[..1500] }).to_string();
    guarded.organisations.replace(document.as_bytes()).unwrap();
    let reader = guarded.reader();
    let asked = |range: std::ops::RangeInclusive<u32>| {
        range.map(|her_id| format!("HerIds={her_id}&")).collect::<String>() + "Offset=0"
    };
    assert_eq!(guarded.poll(&reader, &asked(1..=1500)).await.status, OK);
    assert_eq!(guarded.poll(&reader, &asked(1..=1501)).await.status, INVALID);
    let refused = guarded.poll(&reader, &asked(2..=1501)).await;
    assert_eq!(refused.status, REFUSED);
    assert_eq!(refused.json()["detail"], "No access to HER-id 1501.");
    let repeats = "HerIds=1&".repeat(1501) + "Offset=0";
    assert_eq!(guarded.poll(&reader, &repeats).await.status, OK);
}

#[tokio::test]
async fn her_ids_are_read_from_the_query_alone() {
    let guarded = Guarded::start().await;
    guarded.append(&[draft(400), draft(100)]).await;
    let reader = guarded.caller(json!({ HER_ID_CLAIM: "100" }));
    let path = "/notifications?HerIds=100&Offset=0";
    let call = || guarded.call(&reader, Method::GET, path);
    for call in [
        call().header("content-type", "application/x-www-form-urlencoded").body("HerIds=400"),
        call().header("content-type", "application/json").body(r#"{"HerIds":[400]}"#),
        call().header("herids", "400"),
        call().header("cookie", "HerIds=400"),
        call().header("x-original-url", "/notifications?HerIds=400&Offset=0"),
        call().header("x-http-method-override", "POST"),
        call().header("referer", "http://x/notifications?HerIds=400"),
    ] {
        assert_eq!(answer(call).await.offsets(), [2]);
    }
    // Nor is the event's id more than an offset.
    let path = "/notifications/stream?HerIds=100";
    for id in ["400&HerIds=400", "0\u{a0}", "%30", "0x0", "+0", "1 2"] {
        let call = guarded.call(&reader, Method::GET, path).header("accept", EVENT_STREAM);
        assert_eq!(answer(call.header("last-event-id", id)).await.status, INVALID, "{id}");
    }
}
