# credentials-test.sh CREDENTIALS.SH: runs it with a stand-in for AWS's tool, in the working directory.
set -euo pipefail
script=$1
file=$PWD/kms.json

# Answers with what --query would make of STS's answer.
aws() {
  printf '%s\n' "$@" > asked
  command cat answer
}
export -f aws
credentials() {
  bash -euo pipefail "$script" arn:aws:iam::111122223333:role/nitro-sign-kms '{"Version": "2012-10-17"}' "$file"
}

echo '{"access_key_id": "a", "secret_access_key": "b", "session_token": "c"}' > answer
credentials
cmp answer "$file"
[ "$(stat --format=%a "$file")" = 600 ]
grep -qx arn:aws:iam::111122223333:role/nitro-sign-kms asked
grep -qx '{"Version": "2012-10-17"}' asked

# STS is out of reach: nothing is left that looks like credentials.
rm answer
if credentials 2> /dev/null; then
  echo "a failure of AWS's tool is no failure"
  exit 1
fi
[ ! -e "$file" ]
