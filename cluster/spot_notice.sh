#!/usr/bin/env bash
# Waits until the cloud says that this spot machine will be taken away, then tells Ray: spot_notice.sh ADDRESS [SECONDS]
#
# ADDRESS is the head's host:port, SECONDS what is left from the notice on (default 110: AWS gives 120; use 20 on
# Google's and Azure's machines, which give 30). ray-cloud.yaml starts it beside `ray start`. Kubernetes needs
# none of this: there a pod's SIGTERM is the notice.
set -u
address=$1 seconds=${2:-110} every=${EVERY:-5}
metadata=http://169.254.169.254

noticed() {
    local token
    # AWS: 404 until the notice. A token is asked for each time, because it expires.
    token=$(curl -sf -m 2 -X PUT -H "X-aws-ec2-metadata-token-ttl-seconds: 60" "$metadata/latest/api/token") &&
        curl -sf -m 2 -o /dev/null -H "X-aws-ec2-metadata-token: $token" "$metadata/latest/meta-data/spot/instance-action" &&
        return 0
    # Google: TRUE from the notice on.
    [ "$(curl -sf -m 2 -H "Metadata-Flavor: Google" "$metadata/computeMetadata/v1/instance/preempted")" = TRUE ] &&
        return 0
    # Azure: a list of events. One of the type Preempt is about this machine, unless it names others of its set.
    curl -sf -m 2 -H "Metadata: true" "$metadata/metadata/scheduledevents?api-version=2020-07-01" | grep -q '"Preempt"'
}

until noticed; do
    sleep "$every"
done
exec ray drain-node --address "$address" --reason DRAIN_NODE_REASON_PREEMPTION \
    --reason-message "the cloud takes this spot machine back" --deadline-remaining-seconds "$seconds"
