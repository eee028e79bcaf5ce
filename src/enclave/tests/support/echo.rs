//! A workload for the tests of `src/workload.rs`: `echo KEY_FILE LISTEN RELAY`. Knows TCP and nothing else. Compiled by the
//! test with nothing but the standard library.

use std::{
    env, fs,
    io::{BufRead, BufReader, Result, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::exit,
};

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [key_file, listen, relay] = &arguments[..] else { exit(2) };
    println!("read {} bytes of key shares", fs::read(key_file)?.len());
    eprintln!("{} variables", env::vars().count());
    for client in TcpListener::bind(listen)?.incoming() {
        let mut client = client?;
        let answer = match line(&client)?.as_str() {
            "" => continue,
            "exit" => exit(4),
            "keys" => format!("key file there: {}", Path::new(key_file).exists()),
            other => match other.strip_prefix("relay ") {
                Some(message) => {
                    let mut relay = TcpStream::connect(relay)?;
                    writeln!(relay, "{message}")?;
                    line(&relay)?
                }
                None => other.to_owned(),
            },
        };
        writeln!(client, "{answer}")?;
    }
    Ok(())
}

fn line(stream: &TcpStream) -> Result<String> {
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
