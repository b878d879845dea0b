//! A notification on one line for people.

use clap::builder::styling::{AnsiColor, Style};
use herald_client::Notification;
use herald_types::NotificationType;

use crate::output::tame;

/// Time, offset, type, whom it is for, who caused it and the description, styled; the object itself if it has another shape.
pub(crate) fn line(notification: &Notification) -> String {
    let Ok(fields) = notification.fields() else {
        return format!("{}\n", tame(notification.raw()));
    };
    let time = fields.created_at.map(|time| time.strftime("%H:%M:%S%.3f").to_string());
    let time = time.unwrap_or_default();
    let (offset, to) = (fields.offset, fields.notification_receiver_her_id);
    let by = fields.notification_triggered_by_her_id.map(|by| format!(" from {by}"));
    let by = by.unwrap_or_default();
    let (kind, description) = (tame(&fields.kind), tame(&fields.description.unwrap_or_default()));
    let (color, dim) = (style(&kind), Style::new().dimmed());
    format!(
        "{dim}{time}{dim:#} {offset:>4}  {color}{kind:<28}{color:#} for {to}{by}  {dim}{description}{dim:#}\n"
    )
}

fn style(kind: &str) -> Style {
    let color = match kind.parse() {
        Ok(NotificationType::NewMessage) => AnsiColor::Green,
        Ok(NotificationType::RefusedMessage) => AnsiColor::Red,
        Ok(NotificationType::MessageSentStateUpdated) => AnsiColor::Cyan,
        Ok(NotificationType::MessageDeliveryStateUpdated) => AnsiColor::Blue,
        Ok(NotificationType::MessageApprecInfoUpdated) => AnsiColor::Magenta,
        Ok(_) | Err(_) => AnsiColor::Yellow,
    };
    color.on_default().bold()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(json: &str) -> String {
        let line = line(&Notification::parse(json.to_owned().into()).unwrap());
        anstream::adapter::strip_str(&line).to_string()
    }

    #[test]
    fn it_says_when_where_what_and_for_whom() {
        let line = plain(
            r#"{"type":"NewMessage","notificationReceiverHerId":7,"notificationTriggeredByHerId":8,"description":"text","createdAt":"2026-05-08T08:32:15.31+00:00","offset":45459}"#,
        );
        assert_eq!(line, "08:32:15.310 45459  NewMessage                   for 7 from 8  text\n");
    }

    #[test]
    fn what_is_missing_is_left_out_and_another_shape_is_shown_as_it_is() {
        let bare = r#"{"type":"News","notificationReceiverHerId":7,"offset":5}"#;
        assert_eq!(plain(bare).trim(), "5  News                         for 7");
        assert_eq!(plain(r#"{"type":1,"offset":5}"#), "{\"type\":1,\"offset\":5}\n");
    }

    #[test]
    fn text_cannot_take_over_the_terminal() {
        let styled = |json: &str| line(&Notification::parse(json.to_owned().into()).unwrap());
        let bare = styled(r#"{"type":"A","notificationReceiverHerId":7,"offset":5}"#);
        let line = styled(
            r#"{"type":"A\u001b[31mB","notificationReceiverHerId":7,"description":"a\u001b]0;x\u0007\r\nb\u009b2J \u202ec","offset":5}"#,
        );
        assert_eq!(
            line.matches('\x1b').count(),
            bare.matches('\x1b').count(),
            "only its own styles"
        );
        assert!(line.contains("A [31mB") && line.contains("a ]0;x   b 2J  c"), "{line:?}");
        // JSON may have some of them as they are.
        let other = styled("{\"type\":1,\"x\":\"\u{9b}2J\u{202e}\u{2028}\",\"offset\":5}");
        assert_eq!(other, "{\"type\":1,\"x\":\" 2J  \",\"offset\":5}\n");
    }
}
