"""Pages through, then streams, with httpx and httpx-sse; prints what it is given as lines.

Arguments: the base URL, how many notifications to stream, and the HER-ids.
"""

import json
import sys

import httpx
from httpx_sse import connect_sse

base, count, *her_ids = sys.argv[1:]
headers = {"api-version": "3", "nhn-source-system": "httpx-sse/1"}

with httpx.Client(base_url=base, headers=headers, timeout=60, trust_env=False) as client:
    after = 0
    while True:
        query = {"HerIds": her_ids, "Offset": after, "NotificationsToFetch": 1000}
        answer = client.get("/notifications", params=query)
        answer.raise_for_status()
        page = answer.json()["notifications"]
        for notification in page:
            print("polled", json.dumps(notification), flush=True)
        if not page:
            break
        after = page[-1]["offset"]

    query = {"HerIds": her_ids, "Offset": 0}
    with connect_sse(client, "GET", "/notifications/stream", params=query) as stream:
        left = int(count)
        for event in stream.iter_sse():
            if event.event == "connected":
                print("connected", json.dumps(event.data), flush=True)
                continue
            assert event.event == "notification", event
            print("streamed", event.id, event.data, flush=True)
            left -= 1
            if left == 0:
                break
