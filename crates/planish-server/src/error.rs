//! Errors as clients read them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use planish::Refusal;
use serde_json::{Value, json};

/// A refusal of a request, or a failure.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ApiError {
    pub status: StatusCode,
    pub message: String,
    /// The field of the body that it is about.
    pub param: Option<String>,
    pub code: Option<&'static str>,
}

/// Seconds after which a client may try again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("1");

impl ApiError {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError {
            status,
            message: message.into(),
            param: None,
            code: None,
        }
    }

    /// A field of the body that cannot be taken as it is.
    pub(crate) fn field(param: impl Into<String>, message: impl Into<String>) -> ApiError {
        ApiError {
            param: Some(param.into()),
            ..ApiError::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// Something that is understood and not done.
    pub(crate) fn unsupported(param: &str) -> ApiError {
        ApiError {
            code: Some("unsupported_parameter"),
            ..ApiError::field(param, format!("{param} is not supported by this server"))
        }
    }

    pub(crate) fn failed(error: &planish::Error) -> ApiError {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    pub(crate) fn shutting_down() -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is shutting down")
    }

    fn kind(&self) -> &'static str {
        match self.status {
            StatusCode::UNAUTHORIZED => "authentication_error",
            StatusCode::FORBIDDEN => "permission_error",
            StatusCode::NOT_FOUND => "not_found_error",
            StatusCode::PAYLOAD_TOO_LARGE => "request_too_large",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            StatusCode::SERVICE_UNAVAILABLE => "overloaded_error",
            status if status.is_server_error() => "api_error",
            _ => "invalid_request_error",
        }
    }

    /// Says another name of a field, where a request was translated.
    pub(crate) fn renamed(self, from: &str, to: &str) -> ApiError {
        match self.param.as_deref() {
            Some(param) if param.starts_with(from) => ApiError {
                param: Some(param.replacen(from, to, 1)),
                message: self.message.replace(from, to),
                ..self
            },
            _ => self,
        }
    }

    /// As Anthropic's clients read it.
    pub(crate) fn anthropic(&self) -> Value {
        json!({"type": "error", "error": {"type": self.kind(), "message": self.message}})
    }

    /// `{"error": ...}`
    pub(crate) fn body(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind(),
            "param": self.param,
            "code": self.code,
        }})
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        match &refusal {
            Refusal::Busy { .. } => ApiError::new(StatusCode::TOO_MANY_REQUESTS, refusal.to_string()),
            Refusal::Closed => ApiError::shutting_down(),
            Refusal::Request(planish::Error::Generate(error)) => ApiError {
                param: match error {
                    planish::GenerateError::Option { option, .. } => Some((*option).to_owned()),
                    _ => None,
                },
                code: matches!(error, planish::GenerateError::ContextFull { .. }).then_some("context_length_exceeded"),
                ..ApiError::new(StatusCode::BAD_REQUEST, error.to_string())
            },
            _ => ApiError::new(StatusCode::BAD_REQUEST, refusal.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let later = matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        );
        let mut response = (self.status, axum::Json(self.body())).into_response();
        if later {
            response.headers_mut().insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        // For whoever knows of a client that reads errors otherwise.
        response.extensions_mut().insert(self);
        response
    }
}
