//! The paths of both ports.

use http::Method;

/// What a path leads to, on whichever port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Polls and appends.
    Notifications,
    /// Streams.
    Stream,
    /// Whether the API answers.
    Ping,
    /// The OpenAPI document.
    OpenApi,
    /// The document's UI and its files.
    Swagger,
    /// What Prometheus reads.
    Metrics,
    /// Whether the process lives.
    Live,
    /// Whether balancers should send requests.
    Ready,
    /// No path of Herald's.
    Other,
}

impl Route {
    pub(crate) const COUNT: usize = Self::ALL.len();
    /// In the order of their numbers.
    pub(crate) const ALL: [Self; 9] = [
        Self::Notifications,
        Self::Stream,
        Self::Ping,
        Self::OpenApi,
        Self::Swagger,
        Self::Metrics,
        Self::Live,
        Self::Ready,
        Self::Other,
    ];

    pub(crate) fn of(path: &str) -> Self {
        match path {
            "/notifications" => Self::Notifications,
            "/notifications/stream" => Self::Stream,
            "/ping" => Self::Ping,
            "/openapi.json" => Self::OpenApi,
            "/swagger" => Self::Swagger,
            "/metrics" => Self::Metrics,
            "/health/live" => Self::Live,
            "/health/ready" => Self::Ready,
            _ if path.starts_with("/swagger/") => Self::Swagger,
            _ => Self::Other,
        }
    }

    /// The route as a label: a bounded set, whatever is asked for.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Notifications => "/notifications",
            Self::Stream => "/notifications/stream",
            Self::Ping => "/ping",
            Self::OpenApi => "/openapi.json",
            Self::Swagger => "/swagger",
            Self::Metrics => "/metrics",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Other => "other",
        }
    }

    /// The methods that the path knows, as `Allow` names them.
    pub(crate) const fn allow(self) -> &'static str {
        match self {
            Self::Notifications => "GET,HEAD,POST,OPTIONS",
            _ => "GET,HEAD,OPTIONS",
        }
    }
}

/// Whether the method asks for what a path has: a HEAD is answered as a GET whose body is left out.
pub(crate) fn is_get(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_matched_whole_but_for_the_files_of_swagger() {
        assert_eq!(Route::of("/notifications"), Route::Notifications);
        assert_eq!(Route::of("/swagger/index.html"), Route::Swagger);
        for path in ["/notifications/", "/notifications/7", "/Notifications", "/swaggerx", ""] {
            assert_eq!(Route::of(path), Route::Other, "{path}");
        }
    }
}
