//! Request bodies that no handler reads.
//!
//! A response to a request whose body is not read ends the connection. If the proxy is still sending then, the kernel
//! resets the connection, and the proxy loses the response, which would say why.

use std::{
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::Request,
};
use http_body_util::BodyExt;
use hyper::body::{Frame, SizeHint};
use tokio::{runtime::Handle, time::timeout};

/// How much is read and discarded, in bytes: what the proxy accepts (client_max_body_size, by default 1 MB).
const LIMIT: usize = 1 << 20;

/// How long. A client that sends more slowly loses the response.
const TIME: Duration = Duration::from_secs(30);

/// Reads and discards what the handler leaves unread of the body of `request`.
pub fn discard(request: Request) -> Request {
    match request.body().is_end_stream() {
        true => request,
        false => request.map(|body| Body::new(Unread(body))),
    }
}

/// A body that is read to its end when it is dropped.
struct Unread(Body);

impl HttpBody for Unread {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        if self.is_end_stream() {
            return;
        }
        // Without a runtime, nothing can be read, and nobody waits for a response.
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let mut body = mem::take(&mut self.0);
        runtime.spawn(timeout(TIME, async move {
            let mut read = 0;
            while read < LIMIT
                && let Some(Ok(frame)) = body.frame().await
            {
                read += frame.data_ref().map_or(0, Bytes::len);
            }
        }));
    }
}
