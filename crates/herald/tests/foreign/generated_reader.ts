// Polls through with the client that openapi-generator made of the document; prints each notification as a line.
//
// Arguments: the base URL and the HER-ids. The types are the generated ones: this file compiles only if they fit.

import { Configuration, NotificationsApi } from "./client/index.js";
import type { Notification } from "./client/index.js";

declare const process: { argv: string[] };

const [base, ...herIds] = process.argv.slice(2);
const api = new NotificationsApi(new Configuration({ basePath: base }));

let offset = 0;
for (;;) {
  const page = await api.pollNotifications({
    apiVersion: "3",
    nhnSourceSystem: "openapi-generator/1",
    herIds: herIds.map(Number),
    offset,
    notificationsToFetch: 7,
  });
  const notifications: Notification[] = page.notifications;
  for (const { notificationId, type, description, offset } of notifications) {
    console.log(JSON.stringify({ notificationId, type, description, offset }));
  }
  const last = notifications.at(-1);
  if (last === undefined) break;
  offset = last.offset;
}
