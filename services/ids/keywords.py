"""Keywords of the rule language that this service does not take, each with the reason.

Source: Suricata user guide, "Rules"; docs/reference/ids.md, which a test compares with this table.
"""

from __future__ import annotations

NO_BUFFER = "there is no such buffer: payloads of chunks are not parsed by any protocol"
NO_HEADER = "chunks have no headers of IP, TCP, UDP or ICMP"
NO_ARITHMETIC = "what is read from payloads is compared and jumped by, not kept"
NO_STORE = "nothing is kept but marks of flows (flowbits)"
NO_CODE = "no code is run, no other program is asked"
NO_RESPONSE = "payloads and routers are not changed"

_REASONS = {
    NO_BUFFER: (
        "http_* uricontent urilen file_data filename fileext filemagic filemd5 filesha1 filesha256 "
        "filestore filesize dns_query dns_* tls_* ssl_version ssl_state ssh_* ssh_proto ja3* ja4* "
        "smb_* dce_* krb5_* snmp_* ftp* modbus cip_service enip_command app-layer-protocol "
        "app-layer-event base64_data base64_decode bsize sip_* mqtt* rfb* quic* dhcp* ike* tftp* "
        "nfs* rpc to_lowercase to_md5 to_sha1 to_sha256 strip_whitespace compress_whitespace "
        "url_decode xor dotprefix asn1 cvs sip_body sip_header sip_method sip_stat_code dnp3* "
        "gtp_info gtp_type gtp_version icmpv6_* email* ldap* websocket* pgsql* template* frame"
    ),
    NO_HEADER: (
        "ttl tos id ipopts fragbits fragoffset sameip ip_proto ipv4-csum ipv6-csum tcpv4-csum "
        "tcpv6-csum udpv4-csum udpv6-csum icmpv4-csum icmpv6-csum seq ack flags window "
        "tcp.flags tcp.seq tcp.ack tcp.window tcp.mss tcp.hdr udp.hdr itype icode icmp_id "
        "icmp_seq ipv4.hdr ipv6.hdr icmpv4.hdr icmpv6.hdr icmpv6.mtu engine-event decode-event "
        "stream-event stream_size geoip iprep ip.src ip.dst vlan.id vlan.layers ether.hdr arp*"
    ),
    NO_ARITHMETIC: "byte_extract byte_math entropy ber_data ber_skip",
    NO_STORE: (
        "flowint flowvar pktvar xbits hostbits dataset datarep tag flow.age flow.pkts* flow.bytes* "
        "flow.pkts_toclient flow.pkts_toserver flow.bytes_toclient flow.bytes_toserver "
        "flow.elephant activates activated_by count sticky_buffer absent requires"
    ),
    NO_CODE: "lua luajit luaxform session logto nfq_set_mark config detection so soid",
    NO_RESPONSE: "replace bypass resp react",
}
REFUSED = {word: reason for reason, words in _REASONS.items() for word in words.split()}
"""Keyword, or its begin with a * at the end -> why not."""
_BEGINNINGS = tuple(word[:-1] for word in REFUSED if word.endswith("*"))


def reason_to_refuse(keyword: str) -> str:
    """Return why a keyword that this service does not take is refused."""
    if found := REFUSED.get(keyword):
        return found
    for begin in _BEGINNINGS:
        if keyword.startswith(begin):
            return REFUSED[f"{begin}*"]
    if "." in keyword:  # sticky buffers are named so: http.uri, file.data, tls.sni
        return NO_BUFFER
    return "unknown"
