# nitro-sign-credentials ROLE POLICY FILE: has STS give short-lived credentials of a role, cut down to a policy, and writes them
# to FILE as the daemon reads them. Endpoint, region and own credentials are AWS's tool's matter.
role=$1 policy=$2 file=$3
umask 077
# Old ones would be refused by KMS: that is a failure that stays, and none at all is one that may pass.
rm -f "$file"
aws sts assume-role --role-arn "$role" --role-session-name nitro-sign-parent --duration-seconds 900 --policy "$policy" \
  --output json --query \
  'Credentials.{access_key_id: AccessKeyId, secret_access_key: SecretAccessKey, session_token: SessionToken}' > "$file.new"
mv "$file.new" "$file"
