use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Largest single write that reaches a socket, bytes (16 KiB).
///
/// Linux from 6.17 on sends larger vsock writes as non-linear socket buffers, which the Nitro hypervisor reassembles
/// wrongly; 31 KiB is known to be safe, and 16 KiB is also one TLS record and one HTTP/2 frame.
pub const MAX_WRITE: usize = 16 * 1024;

/// Cuts every write to `IO` to at most [`MAX_WRITE`] bytes. The only place that does.
#[derive(Debug)]
pub(crate) struct Capped<IO> {
    io: IO,
}

impl<IO> Capped<IO> {
    pub(crate) fn new(io: IO) -> Self {
        Self { io }
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Capped<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Capped<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, &bytes[..bytes.len().min(MAX_WRITE)])
    }

    /// Writes the leading slices that fit together, or the start of the first one that is not empty.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut total = 0;
        let fitting = slices.iter().take_while(|slice| {
            total += slice.len();
            total <= MAX_WRITE
        });
        let fitting = fitting.count();
        if slices[..fitting].iter().any(|slice| !slice.is_empty()) {
            return Pin::new(&mut self.io).poll_write_vectored(cx, &slices[..fitting]);
        }
        let first = slices.get(fitting).map_or(&[][..], |slice| slice);
        self.poll_write(cx, first)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    /// Records the size of each write it is asked for, and takes all of it.
    #[derive(Default)]
    struct Recorder {
        sizes: Vec<usize>,
        bytes: Vec<u8>,
    }

    impl AsyncWrite for Recorder {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.sizes.push(bytes.len());
            self.bytes.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            slices: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
            self.poll_write(cx, &bytes)
        }

        fn is_write_vectored(&self) -> bool {
            true
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn no_write_is_larger_than_the_cap_and_no_byte_is_lost() {
        let sent: Vec<u8> = (0..=250u8).cycle().take(100_000).collect();
        let mut capped = Capped::new(Recorder::default());
        capped.write_all(&sent).await.unwrap();
        assert_eq!(capped.io.sizes.iter().max(), Some(&MAX_WRITE));
        assert_eq!(capped.io.bytes, sent);
    }

    #[tokio::test]
    async fn vectored_writes_are_capped_as_a_whole() {
        for lengths in
            [vec![10, 20, 30], vec![0, 0], vec![9000, 9000, 9000], vec![0, 50_000, 7], vec![16_384, 1]]
        {
            let sent: Vec<Vec<u8>> =
                (1u8..).zip(&lengths).map(|(fill, length)| vec![fill; *length]).collect();
            let mut slices: Vec<IoSlice<'_>> = sent.iter().map(|part| IoSlice::new(part)).collect();
            let mut slices = &mut slices[..];
            let mut capped = Capped::new(Recorder::default());
            while slices.iter().any(|slice| !slice.is_empty()) {
                let written = capped.write_vectored(slices).await.unwrap();
                assert!(written > 0, "no progress with {lengths:?}");
                IoSlice::advance_slices(&mut slices, written);
            }
            assert!(
                capped.io.sizes.iter().all(|size| *size <= MAX_WRITE),
                "{lengths:?}: {:?}",
                capped.io.sizes
            );
            assert_eq!(capped.io.bytes, sent.concat());
        }
    }

    #[tokio::test]
    async fn small_slices_still_go_out_in_one_write() {
        let mut capped = Capped::new(Recorder::default());
        assert!(capped.is_write_vectored());
        let written = capped.write_vectored(&[IoSlice::new(b"head"), IoSlice::new(b"body")]).await.unwrap();
        assert_eq!((written, capped.io.sizes), (8, vec![8]));
    }
}
