# Completion of zfs2s3 for fish. Commands and options come from its --help, snapshots from zfs, and what is stored from its list.

function __zfs2s3_commands
    zfs2s3 --help 2>/dev/null | sed -n '/^Commands:/,$s/^  \([a-z_][a-z_]*\)  *\(.*\)/\1\t\2/p'
end

function __zfs2s3_command
    set -l words (commandline -opc)
    set -q words[2]; and echo $words[2]
end

function __zfs2s3_options
    zfs2s3 (__zfs2s3_command) --help 2>/dev/null |
        sed -n 's/^  \(-.\), \(--[a-z-]*\) *\(.*\)/\1\t\3\n\2\t\3/p; s/^  \(--[a-z-]*\)  *\(.*\)/\1\t\2/p'
end

# first the dataset, then its snapshots, since a pool may have thousands
function __zfs2s3_snapshots
    set -l cur (commandline -ct)
    if string match -qr '[@#]' -- $cur
        zfs list -H -d 1 -t $argv[1] -o name (string replace -r '[@#].*' '' -- $cur) 2>/dev/null
    else
        zfs list -H -t filesystem,volume -o name 2>/dev/null | sed 's/$/@/'
    end
end

function __zfs2s3_arguments
    set -l words (commandline -opc)
    set -l command $words[2]
    switch "$command $words[-1]"
        case 'upload -i' 'upload --base'
            __zfs2s3_snapshots snapshot,bookmark
        case '* -i' '* --base'
            zfs2s3 list -H -o base 2>/dev/null | string match -v -- - | sort -u
        case 'list -o' 'list --columns' 'list -s' 'list --sort' 'list -S' 'list --sort-descending'
            printf '%s\n' snapshot guid base base_guid copy size chain restore class stored age begun state filter readable verified
        case '* -t' '* --tier'
            printf '%s\n' bulk standard expedited
        case 'upload *'
            __zfs2s3_snapshots snapshot
        case 'list *'
            zfs2s3 list -H -o snapshot 2>/dev/null | sed 's/@.*//' | sort -u
        case 'check *'
            zfs list -H -t filesystem,volume -o name 2>/dev/null
        case 'restore *' 'thaw *' 'remove *' 'keep *' 'unkeep *' 'download *' 'verify *'
            zfs2s3 list -H -o snapshot 2>/dev/null | sort -u
            contains $command restore thaw; and zfs list -H -t filesystem,volume -o name 2>/dev/null
    end
end

complete -c zfs2s3 -f
complete -c zfs2s3 -n '__fish_is_nth_token 1' -a '(__zfs2s3_commands)'
complete -c zfs2s3 -n 'not __fish_is_nth_token 1' -a '(__zfs2s3_arguments)'
complete -c zfs2s3 -n 'not __fish_is_nth_token 1; and string match -q -- "-*" (commandline -ct)' -a '(__zfs2s3_options)'
