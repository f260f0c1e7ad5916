#!/bin/sh
# Brings back the streams of a RabbitMQ that does not remember having any: docs/runbooks/broker-streams-gone.md.
#
#   revive-streams.sh [-n NODE ...]     on the broker's machine, as a user who may run rabbitmqctl; arguments are rabbitmqctl's
#
# It writes the name of the process that coordinates streams back into the file of such names, and starts that process, which
# starts the streams. Where the name is in the file it changes nothing. Says `revived`, `nothing_to_do` or `not_revived`.
set -eu

ctl="${RABBITMQCTL:-rabbitmqctl}"
if ! command -v "$ctl" >/dev/null 2>&1; then
    printf '%s\n' "revive-streams: $ctl is missing: run this where the broker is" >&2
    exit 3
fi

said="$("$ctl" "$@" eval '
#{names := Names, data_dir := Folder} = ra_system:fetch(coordination),
Name = rabbit_stream_coordinator,
case ra_directory:uid_of(Names, Name) of
    undefined ->
        Its = fun(File) ->
            case file:consult(File) of
                {ok, [#{id := {Found, _}}]} -> Found =:= Name;
                _ -> false
            end
        end,
        Files = filelib:wildcard(filename:join([Folder, "*", "config"])),
        case [filename:basename(filename:dirname(File)) || File <- Files, Its(File)] of
            [Uid] ->
                Table = maps:get(directory_rev, Names),
                ok = dets:insert(Table, {Name, list_to_binary(Uid)}),
                ok = dets:sync(Table),
                {revived, Uid, rabbit_stream_coordinator:recover()};
            Found -> {not_revived, Found}
        end;
    _ -> nothing_to_do
end.')"
printf '%s\n' "$said"
case "$said" in
*not_revived*) exit 1 ;;
esac
