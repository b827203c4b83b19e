"""One BitTorrent node on libtorrent, with the settings that suit a closed network best. For the benchmark only.

torrent.py make FILE TORRENT [TRACKER]
torrent.py seed|super|leech TORRENT FOLDER ADDRESS DONE PEER...

`make` prints the torrent's name, for a tracker's list. `leech` writes the file DONE when it holds everything, and goes
on seeding.
"""

import sys
import time

import libtorrent as lt

SETTINGS = {
    "enable_dht": False,
    "enable_lsd": False,
    "enable_upnp": False,
    "enable_natpmp": False,
    "enable_outgoing_utp": False,
    "enable_incoming_utp": False,
    "out_enc_policy": 2,
    "in_enc_policy": 2,
    "mixed_mode_algorithm": 0,
    "connections_limit": 500,
    "unchoke_slots_limit": -1,
    "allow_multiple_connections_per_ip": True,
    "max_out_request_queue": 1500,
    "send_buffer_watermark": 4 * 1024 * 1024,
    "request_timeout": 5,
    "piece_timeout": 5,
    "min_reconnect_time": 1,
    "torrent_connect_boost": 100,
    "predictive_piece_announce": 100,
    "aio_threads": 2,
    "hashing_threads": 1,
    "suggest_mode": 0,
}


def make(path, torrent, tracker=""):
    files = lt.file_storage()
    lt.add_files(files, path)
    # aria2 makes another name than libtorrent of one that is for both versions of the protocol.
    made = lt.create_torrent(files, piece_size=1 << 20, flags=lt.create_torrent.v1_only)
    lt.set_piece_hashes(made, path.rsplit("/", 1)[0])
    if tracker:
        made.add_tracker(tracker)
    with open(torrent, "wb") as out:
        out.write(lt.bencode(made.generate()))
    print(lt.torrent_info(torrent).info_hashes().v1)


def take_part(role, torrent, folder, address, done, peers):
    session = lt.session({"listen_interfaces": address + ":6881", **SETTINGS})
    parameters = lt.add_torrent_params()
    parameters.ti = lt.torrent_info(torrent)
    parameters.save_path = folder
    if role != "leech":
        parameters.flags |= lt.torrent_flags.seed_mode
    if role == "super":
        parameters.flags |= lt.torrent_flags.super_seeding
    handle = session.add_torrent(parameters)
    for peer in peers:
        handle.connect_peer((peer, 6881))
    while True:
        if role == "leech" and handle.status().is_seeding:
            open(done, "w").close()
            role = "done"
        time.sleep(0.02)


if sys.argv[1] == "make":
    make(*sys.argv[2:])
else:
    take_part(sys.argv[1], *sys.argv[2:6], sys.argv[6:])
