"""provision: what an operator does before and around a boot, for tests: with the operator's own tool and a KMS stand-in.

A world is a directory. `prepare`, `kms` and `deal` make it on the machine that plays AWS and the operator; `parent` and
`gateway` take from it what belongs on those machines. Everything secret in it is made here, for one run.
"""

import argparse
import base64
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import tomllib
import urllib.error
import urllib.request
from hashlib import sha256
from pathlib import Path
from typing import Any

REGION = "eu-central-1"
ACCOUNT = "arn:aws:iam::111122223333"
LOG_GROUP = "/nitro-sign/parent"
SCHEMES = ["frost-ed25519", "frost-secp256k1-tr"]

Word = str | Path


def run(*words: Word, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command that has to succeed; what it says on standard error is shown."""
    environment = {**os.environ, **(env or {})}
    command = [str(word) for word in words]
    done = subprocess.run(command, input=stdin, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"provision: `{' '.join(command)}` ended with {done.returncode}")
    return done.stdout


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def to_toml(tables: dict[str, Any], prefix: str = "") -> str:
    """TOML of tables, texts, numbers and lists of them, which TOML writes as JSON does; lists of tables at the top only."""
    plain, nested = [], []
    for key, value in tables.items():
        if isinstance(value, dict):
            nested.append(f"\n[{prefix}{key}]\n" + to_toml(value, f"{prefix}{key}."))
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            nested += [f"\n[[{prefix}{key}]]\n" + to_toml(item) for item in value]
        else:
            plain.append(f"{key} = {json.dumps(value)}\n")
    return "".join(plain + nested)


def write_private(path: Path, content: str) -> None:
    path.touch(mode=0o600)
    path.write_text(content)


def copy_private(source: Path, directory: Path) -> Path:
    target = directory / source.name
    write_private(target, source.read_text())
    return target


# --- AWS and the operator ---


def prepare(world: Path, kms_authority: str) -> None:
    """The authorities, two access keys, the CAs of clients and relay, the gateway's certificate.

    KMS's authority may be one that an image was built with."""
    world.mkdir(parents=True)
    run("emulator", "authority", "--dir", world / "authority")
    if kms_authority:
        shutil.copytree(kms_authority, world / "kms-authority")
    else:
        run("emulator", "kms-authority", "--dir", world / "kms-authority")
    principals = {
        role: {
            "arn": f"{ACCOUNT}:role/{role}",
            "access_key_id": "AKIA" + secrets.token_hex(8).upper(),
            "secret_access_key": secrets.token_hex(20),
        }
        for role in ["admin", "parent"]
    }
    write_private(world / "principals.json", json.dumps(principals))
    certificates(world)


def certificates(world: Path) -> None:
    # Nothing from the system's configuration.
    config = world / "openssl.cnf"
    config.write_text("[req]\ndistinguished_name = none\n[none]\n")

    def make(name: str, file: str, *more: Word) -> None:
        key: list[Word] = [
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-keyout",
            world / f"{file}.key",
        ]
        subject: list[Word] = ["-config", config, "-subj", f"/CN={name}", "-days", "1"]
        run("openssl", "req", "-x509", *subject, *key, "-out", world / f"{file}.pem", *more)

    authority = ["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign"]
    make("client CA", "client-ca", *authority)
    make("relay CA", "relay-ca", *authority)
    issuer: list[Word] = ["-CA", world / "client-ca.pem", "-CAkey", world / "client-ca.key"]
    make("Sign Gateway", "client", *issuer, "-addext", "extendedKeyUsage=clientAuth")


def kms(world: Path, listen: str) -> None:
    """Becomes the KMS stand-in."""
    words = ["emulator", "kms", "--listen", listen, "--host", f"kms.{REGION}.amazonaws.com"]
    words += ["--state-dir", str(world), "--authority-dir", str(world / "kms-authority")]
    words += [
        "--attestation-root",
        str(world / "authority/root.pem"),
        "--refused-document",
        str(world / "refused.cose"),
    ]
    for one in read_json(world / "principals.json").values():
        words += ["--principal", f"{one['arn']}:{one['access_key_id']}:{one['secret_access_key']}"]
    os.execvp(words[0], words)


def nitro_sign(world: Path, address: str, *words: Word, stdin: str | None = None) -> str:
    """The operator's tool, as the key's administrator."""
    admin = read_json(world / "principals.json")["admin"]
    env = {
        name.upper(): admin[key]
        for name, key in [("aws_access_key_id", "access_key_id"), ("aws_secret_access_key", "secret_access_key")]
    }
    access = ["--region", REGION, "--kms-endpoint", f"tcp:{address}"]
    authority = ["--kms-ca", str(world / "kms-authority/kms-ca.pem")]
    return run("nitro-sign", *access, *authority, *words, stdin=stdin, env=env)


def deal(world: Path, address: str, accounts: int) -> None:
    """Identity and key, then shares: what an operator does once."""
    deployment = world / "deployment"
    admin = read_json(world / "principals.json")["admin"]["arn"]
    key = ["--create-kms-key", "--admin", admin]
    nitro_sign(world, address, "init", "--party", "enclave-a", *key, "--dir", deployment)
    cosigner = json.loads(run("nitro-sign", "cosigner", "--identity", world / "gateway-identity.txt"))
    names = [{"id": f"{scheme}-{number + 1}", "scheme": scheme} for scheme in SCHEMES for number in range(accounts)]
    (world / "accounts.json").write_text(json.dumps(names))
    nitro_sign(
        world,
        address,
        "key-gen",
        "--dir",
        deployment,
        "--cosigner",
        f"gateway={cosigner['recipient']}={world / 'gateway.json.age'}",
        "--client-ca",
        world / "client-ca.pem",
        "--relay-ca",
        world / "relay-ca.pem",
        "--accounts",
        world / "accounts.json",
    )


def policy(world: Path, address: str, pcr0: list[str]) -> None:
    """The key is released to these images only."""
    roles = read_json(world / "principals.json")
    words = ["policy", "--apply", "--role", roles["parent"]["arn"], "--admin", roles["admin"]["arn"]]
    for one in pcr0:
        words += ["--pcr0", one]
    nitro_sign(world, address, *words, "--dir", world / "deployment")


def logs(world: Path, listen: str) -> None:
    """Becomes the CloudWatch Logs stand-in."""
    role = read_json(world / "principals.json")["parent"]
    words = ["emulator", "logs", "--listen", listen, "--host", "aws", "--region", REGION, "--group", LOG_GROUP]
    words += ["--principal", f"{role['arn']}:{role['access_key_id']}:{role['secret_access_key']}"]
    words += ["--state-dir", str(world / "logs")]
    # Where its own journal is the one that is shipped, a line for each request would never end.
    os.environ["NITRO_SIGN_LOG"] = "warn"
    os.execvp(words[0], words)


# --- the parent instance ---


def parent(world: Path, template: Path, directory: Path, peer: str, note: str) -> None:
    """Puts what a parent needs into `directory`, and `parent.toml` after a template: the one that the module makes, in which
    only what is made in this run is missing. Prints the PCRs of what it will launch."""
    deployment = world / "deployment"
    directory.mkdir(parents=True, exist_ok=True)
    for name in ["age-identity.kms", "service_key_shares.json.age"]:
        shutil.copy(deployment / name, directory)
    if not (directory / "authority").exists():
        shutil.copytree(world / "authority", directory / "authority")
    role = read_json(world / "principals.json")["parent"]
    keys = ["access_key_id", "secret_access_key"]
    write_private(directory / "credentials.json", json.dumps({key: role[key] for key in keys}))

    config, facts = read_toml(template), read_toml(deployment / "deployment.toml")
    config["ciphertexts"] = {
        "identity": str(directory / "age-identity.kms"),
        "bundle": str(directory / "service_key_shares.json.age"),
    }
    config["bundle"] = {"epoch": facts["epoch"], "sha256": facts["bundle_sha256"]}
    config["kms"] |= {"region": facts["region"], "key_id": facts["kms_key_id"]}
    if config["enclave"]["backend"] == "process":
        process = config["enclave"]["process"]
        process["config"] = str(directory / "enclave.toml")
        enclave = {
            "parent": peer,
            "nsm": "unix:nsm.sock",
            "sign_service": process["sign_service"],
            "work_dir": "work",
            "kms_roots_pem": (world / "kms-authority/kms-ca.pem").read_text(),
        }
        # Measured like everything else in the file.
        remark = f"# {note}\n" if note else ""
        (directory / "enclave.toml").write_text(remark + to_toml(enclave))
    write_parent(directory, config)
    pcrs = json.loads(run("nitro-sign", "measure", "--parent", directory / "parent.toml"))
    config["enclave"]["pcr0"] = pcrs["PCR0"]
    write_parent(directory, config)
    print(json.dumps(pcrs))


def write_parent(directory: Path, config: dict[str, Any]) -> None:
    (directory / "parent.toml").write_text(to_toml(config))


def journal(world: Path, directory: Path) -> None:
    """Puts the credentials with which the journal is shipped into `directory`: those of the instance's role."""
    role = read_json(world / "principals.json")["parent"]
    names = {"AWS_ACCESS_KEY_ID": "access_key_id", "AWS_SECRET_ACCESS_KEY": "secret_access_key"}
    write_private(directory / "journal.env", "".join(f"{name}={role[key]}\n" for name, key in names.items()))


# --- the Sign Gateway ---


def gateway(world: Path, directory: Path, listen: str, node: str, pcr0: list[str]) -> None:
    """Puts what a gateway needs into `directory`, `gateway.toml` with it."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(world / "authority/root.pem", directory)
    for name in ["gateway.json.age", "client.pem", "deployment/accounts.json"]:
        shutil.copy(world / name, directory)
    config = {
        "listen": listen,
        "shares": str(directory / "gateway.json.age"),
        "identity_file": str(copy_private(world / "gateway-identity.txt", directory)),
        "tls_certificate": str(directory / "client.pem"),
        "tls_key": str(copy_private(world / "client.key", directory)),
        "probe_interval_ms": 1000,
        "trust": {
            "attestation_root": str(directory / "root.pem"),
            "pcr0": pcr0,
            "bundle_sha256": [read_toml(world / "deployment/deployment.toml")["bundle_sha256"]],
        },
        "nodes": [{"name": "parent", "address": node}],
    }
    (directory / "gateway.toml").write_text(to_toml(config))


def ask(url: str, body: dict[str, str] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def verified(url: str, seconds: int) -> dict[str, Any]:
    """The only node, once the gateway has verified its attestation document."""
    deadline = time.monotonic() + seconds
    while True:
        node: dict[str, Any] = ask(f"{url}/v1/nodes")[0]
        if node["state"] == "verified":
            return node
        if time.monotonic() > deadline:
            sys.exit(f"provision: the gateway did not verify the node in {seconds} s: {node}")
        time.sleep(0.2)


def sign(url: str, directory: Path) -> None:
    """A signature of every account, through the gateway's API. Prints the node."""
    node = verified(url, 60)
    for account in read_json(directory / "accounts.json"):
        message = sha256(account["id"].encode()).digest()
        try:
            answer = ask(f"{url}/v1/sign", {"account": account["id"], "message": message.hex()})
        except urllib.error.HTTPError as error:
            sys.exit(f"provision: {account['id']}: {error.code} {error.read().decode()}")
        signature = bytes.fromhex(answer["signature"])
        if len(signature) != 64 or answer["public_key"] != account["public_key"]:
            sys.exit(f"provision: {account['id']}: {answer}")
        if account["scheme"] == "frost-ed25519":
            verify_ed25519(bytes.fromhex(account["public_key"]), message, signature)
    print(json.dumps(node))


def verify_ed25519(public_key: bytes, message: bytes, signature: bytes) -> None:
    """By OpenSSL, which has no code in common with the signers."""
    # SubjectPublicKeyInfo of RFC 8410.
    spki = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + public_key).decode()
    files = [Path(f"/tmp/verify-{os.getpid()}.{end}") for end in ["pem", "message", "signature"]]
    files[0].write_text(f"-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n")
    files[1].write_bytes(message)
    files[2].write_bytes(signature)
    run("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", files[0], "-rawin", "-in", files[1], "-sigfile", files[2])
    for file in files:
        file.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(prog="provision", description=(__doc__ or "").partition("\n")[0])
    commands = parser.add_subparsers(required=True)

    def command(function: Any, *arguments: str, **options: Any) -> None:
        one = commands.add_parser(function.__name__, help=(function.__doc__ or "").partition("\n")[0])
        one.set_defaults(function=function)
        for name in arguments:
            one.add_argument(name, type=Path)
        for name, default in options.items():
            if isinstance(default, list):
                one.add_argument(f"--{name}", action="append", default=default)
            else:
                one.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)

    command(prepare, "world", kms_authority="")
    command(kms, "world", listen="127.0.0.1:4433")
    command(logs, "world", listen="127.0.0.1:4434")
    command(deal, "world", address="127.0.0.1:4433", accounts=1)
    command(policy, "world", address="127.0.0.1:4433", pcr0=[])
    command(parent, "world", "template", "directory", peer="vsock:1", note="")
    command(journal, "world", "directory")
    command(gateway, "world", "directory", listen="127.0.0.1:8080", node="127.0.0.1:50051", pcr0=[])
    command(sign, "directory", url="http://127.0.0.1:8080")
    arguments = vars(parser.parse_args())
    arguments.pop("function")(**arguments)


if __name__ == "__main__":
    main()
