#!/bin/sh
# Puts a file into an OSS bucket, with the RAM role of the pod's service account (RRSA): oss-put.sh BUCKET PREFIX FILE NAME
# Needs what the cloud's own libraries read: ALIBABA_CLOUD_ROLE_ARN, ALIBABA_CLOUD_OIDC_PROVIDER_ARN,
# ALIBABA_CLOUD_OIDC_TOKEN_FILE (kubelet renews it) and ALIBABA_CLOUD_STS_ENDPOINT; and OSS_ENDPOINT, the bucket's host by
# which OSS speaks S3, and OSS_REGION. curl makes the signature, which is S3's (docs/facts/cloud.md), from 7.75 on.
set -eu
bucket=$1 key=$2$4 file=$3

# Both hosts are inside the VPC: never by a proxy.
ask() { curl -sS --noproxy '*' --connect-timeout 10 -w ' %{http_code}' "$@" 2>&1 | tr -d '\n'; }

# The value of a name in JSON without nesting of that name, or in XML.
value() { printf '%s' "$2" | sed -n "s/.*\"$1\": *\"\([^\"]*\)\".*/\1/p; s/.*<$1>\([^<]*\)<.*/\1/p"; }

# Asks for the role's credentials of an hour. Whoever has the token may ask: nothing here is signed.
credentials() {
  common="Action=AssumeRoleWithOIDC&Version=2015-04-01&Format=JSON&Timestamp=$(date -u +%Y-%m-%dT%H%%3A%M%%3A%SZ)"
  ask --max-time 30 "https://$ALIBABA_CLOUD_STS_ENDPOINT/?$common&SignatureNonce=$(cat /proc/sys/kernel/random/uuid)" \
    --data-urlencode "RoleArn=$ALIBABA_CLOUD_ROLE_ARN" \
    --data-urlencode "OIDCProviderArn=$ALIBABA_CLOUD_OIDC_PROVIDER_ARN" \
    --data-urlencode "OIDCToken@$ALIBABA_CLOUD_OIDC_TOKEN_FILE" \
    --data-urlencode "RoleSessionName=consul-snapshot"
}

# problem HOST ANSWER: what may be said of an answer that is no success, since the answer could hold credentials.
problem() {
  case ${2##* } in
    [1-5]??) echo "$1: status ${2##* } $(value Code "$2"): $(value Message "$2")" ;;
    *) echo "$1: ${2% 000}" ;;
  esac
  return 1
}

put() {
  answer=$(credentials)
  [ "${answer##* }" = 200 ] || problem "$ALIBABA_CLOUD_STS_ENDPOINT" "$answer" || return 1
  # By stdin: whoever sees the processes of a node sees argument lists.
  answer=$(
    printf 'user = "%s:%s"\nheader = "x-amz-security-token: %s"\n' "$(value AccessKeyId "$answer")" \
      "$(value AccessKeySecret "$answer")" "$(value SecurityToken "$answer")" |
      ask -K - --max-time 600 --aws-sigv4 "aws:amz:$OSS_REGION:s3" -H "content-type: application/octet-stream" \
        -H "x-amz-content-sha256: $digest" -T "$file" "https://$OSS_ENDPOINT/$key"
  )
  [ "${answer##* }" = 200 ] || problem "$OSS_ENDPOINT" "$answer"
}

# OSS compares what arrives with this, and refuses anything else.
digest=$(sha256sum "$file" | cut -d ' ' -f 1)
for attempt in 1 2 3; do
  said=$(put) && exit 0
  [ "$attempt" = 3 ] || sleep "$attempt"
done
echo "consul-snapshot: no copy of $4 in bucket $bucket: $said" >&2
exit 1
